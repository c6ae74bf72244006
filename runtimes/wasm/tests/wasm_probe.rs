#[test]
fn probe() {}
