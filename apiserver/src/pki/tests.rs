use std::os::unix::fs::PermissionsExt;

use super::*;

fn open() -> (PathBuf, Pki) {
    let directory = std::env::temp_dir().join(format!("wherry-pki-{}", uuid::Uuid::new_v4()));
    let pki = Pki::open(&directory).unwrap();
    (directory, pki)
}

#[test]
fn keys_are_readable_by_their_owner_only_and_survive_a_restart() {
    let (directory, pki) = open();
    pki.client(&ClientIdentity::Admin).unwrap();
    let mut keys = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "key") {
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
            keys += 1;
        }
    }
    assert_eq!(keys, 3);
    assert_eq!(std::fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    let again = Pki::open(&directory).unwrap();
    assert_eq!(again.ca_pem(), pki.ca_pem());
    assert_eq!(again.service_account_key_pem(), pki.service_account_key_pem());
    assert_eq!(again.client(&ClientIdentity::Admin).unwrap(), pki.client(&ClientIdentity::Admin).unwrap());
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_node_name_cannot_leave_the_directory() {
    let (directory, pki) = open();
    for bad in ["../x", "a/b", "", "A"] {
        let identity = ClientIdentity::Kubelet { node_name: bad.to_owned() };
        assert!(matches!(pki.client(&identity), Err(Error::NodeName { .. })), "{bad:?}");
        assert!(matches!(pki.kubelet_serving(bad, &[]), Err(Error::NodeName { .. })), "{bad:?}");
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_kubeconfig_quotes_what_it_is_given() {
    let (directory, pki) = open();
    let text = pki.kubeconfig("https://127.0.0.1:1\"\nx: y", &ClientIdentity::Scheduler).unwrap();
    assert!(text.contains(r#"server: "https://127.0.0.1:1\"\nx: y""#), "{text}");
    assert!(text.contains(r#"user: "system:kube-scheduler""#));
    std::fs::remove_dir_all(&directory).unwrap();
}
