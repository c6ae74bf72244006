//! What a guest sees as its arguments, environment and working directory, from image and container together.

use wherry_runtimes::ContainerConfig;

use crate::image::ImageRecord;

/// Arguments, environment and working directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) working_dir: String,
}

/// Merges as CRI says: the container's command replaces the image's entry point and its command; the container's
/// arguments alone replace the image's command; variables of the container go before those of the image.
/// `HOSTNAME` is the pod's, as container runtimes set it, unless somebody says otherwise.
pub(crate) fn arguments(image: &ImageRecord, config: &ContainerConfig, hostname: &str) -> Arguments {
    let (entrypoint, cmd) = match (config.command.is_empty(), config.args.is_empty()) {
        (false, _) => (&config.command, &config.args),
        (true, false) => (&image.entrypoint, &config.args),
        (true, true) => (&image.entrypoint, &image.cmd),
    };
    let mut args: Vec<String> = entrypoint.iter().chain(cmd).cloned().collect();
    // A program always has a name. Without an entry point, arguments stand alone and would be taken for it.
    if config.command.is_empty() && image.entrypoint.is_empty() && !image_names_program(image, config) {
        args.insert(0, config.metadata.name.clone());
    }
    let mut env: Vec<(String, String)> = Vec::new();
    if !hostname.is_empty() {
        env.push(("HOSTNAME".to_owned(), hostname.to_owned()));
    }
    let from_image = image.env.iter().filter_map(|line| line.split_once('='));
    let from_container = config.envs.iter().map(|env| (env.key.as_str(), env.value.as_str()));
    for (name, value) in from_image.chain(from_container) {
        match env.iter_mut().find(|(there, _)| there == name) {
            Some((_, there)) => value.clone_into(there),
            None => env.push((name.to_owned(), value.to_owned())),
        }
    }
    let working_dir = [&config.working_dir, &image.working_dir]
        .into_iter()
        .find(|dir| !dir.is_empty())
        .cloned()
        .unwrap_or_else(|| "/".to_owned());
    Arguments { args, env, working_dir }
}

/// Whether the arguments begin with the image's own program, given as its command.
fn image_names_program(image: &ImageRecord, config: &ContainerConfig) -> bool {
    config.args.is_empty() && image.cmd.first().is_some_and(|first| first.ends_with(".wasm"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wherry_runtimes::{ContainerMetadata, KeyValue};

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn arguments_come_from_container_and_image_as_cri_says() {
        for (entrypoint, cmd, command, args, expected) in [
            (vec![], vec![], vec![], vec![], vec!["name"]),
            (vec![], vec![], vec![], vec!["-v", "x"], vec!["name", "-v", "x"]),
            (vec!["/a.wasm"], vec!["-c"], vec![], vec![], vec!["/a.wasm", "-c"]),
            (vec!["/a.wasm"], vec!["-c"], vec![], vec!["-x"], vec!["/a.wasm", "-x"]),
            (vec!["/a.wasm"], vec!["-c"], vec!["b"], vec![], vec!["b"]),
            (vec!["/a.wasm"], vec!["-c"], vec!["b"], vec!["-y"], vec!["b", "-y"]),
            (vec![], vec!["a.wasm", "-z"], vec![], vec![], vec!["a.wasm", "-z"]),
        ] {
            let image =
                ImageRecord { entrypoint: strings(&entrypoint), cmd: strings(&cmd), ..Default::default() };
            let config = ContainerConfig {
                metadata: ContainerMetadata { name: "name".to_owned(), attempt: 0 },
                command: strings(&command),
                args: strings(&args),
                ..Default::default()
            };
            assert_eq!(arguments(&image, &config, "").args, strings(&expected));
        }
    }

    #[test]
    fn variables_of_the_container_win_and_the_later_of_two() {
        let image = ImageRecord { env: strings(&["A=image", "B=image", "broken"]), ..Default::default() };
        let pair = |key: &str, value: &str| KeyValue { key: key.to_owned(), value: value.to_owned() };
        let config = ContainerConfig {
            envs: vec![pair("B", "one"), pair("C", ""), pair("B", "two")],
            ..Default::default()
        };
        let own = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(arguments(&image, &config, "").env, [own("A", "image"), own("B", "two"), own("C", "")]);
        assert_eq!(arguments(&image, &config, "pod").env[0], own("HOSTNAME", "pod"));
        let image = ImageRecord { env: strings(&["HOSTNAME=image"]), ..Default::default() };
        assert_eq!(arguments(&image, &config, "pod").env[0], own("HOSTNAME", "image"));
    }
}
