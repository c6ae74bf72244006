//! Image names: registry, repository, and how they are shown.

/// The registry of names without one. Source: the convention of container images.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// The name with the tag `latest` when it has neither tag nor digest.
pub fn with_default_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if image.contains('@') || last.contains(':') { image.to_owned() } else { format!("{image}:latest") }
}

/// Registry and repository of a name, for the choice of credentials.
pub fn registry_and_repository(image: &str) -> (String, String) {
    let without_digest = image.split('@').next().unwrap_or(image);
    let (first, rest) = match without_digest.split_once('/') {
        Some((first, rest)) if first.contains('.') || first.contains(':') || first == "localhost" => {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, without_digest),
    };
    let last_slash = rest.rfind('/').map_or(0, |index| index + 1);
    let repository = match rest[last_slash..].find(':') {
        Some(colon) => &rest[..last_slash + colon],
        None => rest,
    };
    (first.to_owned(), repository.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_a_tag_only_when_they_have_none() {
        for (image, expected) in [
            ("busybox", "busybox:latest"),
            ("busybox:1", "busybox:1"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("a@sha256:00", "a@sha256:00"),
        ] {
            assert_eq!(with_default_tag(image), expected);
        }
    }

    #[test]
    fn the_registry_is_the_first_part_when_it_looks_like_a_host() {
        for (image, registry, repository) in [
            ("busybox", "docker.io", "busybox"),
            ("library/busybox:1", "docker.io", "library/busybox"),
            ("localhost:5000/a/b:2", "localhost:5000", "a/b"),
            ("example.com/a@sha256:00", "example.com", "a"),
        ] {
            assert_eq!(
                registry_and_repository(image),
                (registry.to_owned(), repository.to_owned()),
                "{image}"
            );
        }
    }
}
