"""What the Python client's `stream` does against a cluster: exec with input, an exit code, a forwarded port."""

import json

from kubernetes import client, config
from kubernetes.stream import portforward, stream

config.load_kube_config()
core = client.CoreV1Api()
pod, namespace = "debug-me", "default"


def run(command, **options):
    return stream(
        core.connect_get_namespaced_pod_exec,
        pod,
        namespace,
        container="tools",
        command=command,
        stderr=True,
        stdout=True,
        tty=False,
        _preload_content=False,
        **options,
    )


session = run(["cat"], stdin=True)
session.write_stdin("hello from Python\n")
print("echoed:", session.readline_stdout(timeout=20))
session.close()

session = run(["exit", "5"], stdin=False)
session.run_forever(timeout=20)
status = json.loads(session.read_channel(3)) if session.returncode is None else None
print("exit code", session.returncode if status is None else status["details"]["causes"][0]["message"])

forwarded = portforward(core.connect_get_namespaced_pod_portforward, pod, namespace, ports="8080")
socket = forwarded.socket(8080)
socket.setblocking(True)
socket.sendall(b"GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n")
answer = b""
while b"\r\n" not in answer:
    answer += socket.recv(1024)
print(answer.split(b"\r\n")[0].decode())
assert forwarded.error(8080) is None, forwarded.error(8080)
