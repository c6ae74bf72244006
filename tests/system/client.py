"""What the Python client does against a cluster: create, watch, log, delete."""

from kubernetes import client, config, watch

config.load_kube_config()
core = client.CoreV1Api()

pod = client.V1Pod(
    metadata=client.V1ObjectMeta(name="python", labels={"app": "python"}),
    spec=client.V1PodSpec(
        runtime_class_name="wasmtime",
        restart_policy="Never",
        containers=[
            client.V1Container(name="batch", image="samples/batch:v1", args=["--primes-up-to=1000"])
        ],
    ),
)
core.create_namespaced_pod("default", pod)
phase = None
for event in watch.Watch().stream(
    core.list_namespaced_pod, "default", label_selector="app=python", timeout_seconds=60
):
    phase = event["object"].status.phase
    if phase in ("Succeeded", "Failed"):
        break
print(f"phases end in {phase}")
print(core.read_namespaced_pod_log("python", "default"), end="")
# From before the deletion on, so that it is seen however quick it is.
version = core.read_namespaced_pod("python", "default").metadata.resource_version
core.delete_namespaced_pod("python", "default")
for event in watch.Watch().stream(
    core.list_namespaced_pod,
    "default",
    label_selector="app=python",
    resource_version=version,
    timeout_seconds=60,
):
    if event["type"] == "DELETED":
        print("its deletion was watched")
        break
try:
    core.read_namespaced_pod("python", "default")
except client.ApiException as error:
    assert error.status == 404, error
    print("gone")
