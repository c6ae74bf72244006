//! `wherry image …`: the images that Wasm pods run.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use wherry_runtime_wasm::{
    Config,
    image::{Credentials, ImageRecord, ImageStore, PlainHttp, PullOptions},
};

use super::DataDirArguments;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Load a .wasm file, an OCI layout directory, or a tar of one.
    Load(LoadArguments),
    /// Pull an image from a registry.
    Pull(PullArguments),
    /// List the images.
    #[command(alias = "list")]
    Ls(DataDirArguments),
    /// Remove an image.
    #[command(alias = "remove")]
    Rm(NameArguments),
    /// Show an image as JSON.
    Inspect(NameArguments),
}

#[derive(Debug, Args)]
pub(super) struct LoadArguments {
    /// The file or directory.
    path: PathBuf,
    /// The image's name, such as `hello:v1`; an OCI layout may bring its own.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    directory: DataDirArguments,
}

#[derive(Debug, Args)]
pub(super) struct PullArguments {
    /// The image's reference, such as `registry.example/team/hello:v1`.
    name: String,
    /// The user name for the registry.
    #[arg(long, requires = "password_file")]
    username: Option<String>,
    /// The file that holds the password or token.
    #[arg(long, requires = "username", value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Speak plain HTTP to the registry, also where it is not on loopback.
    #[arg(long)]
    plain_http: bool,
    #[command(flatten)]
    directory: DataDirArguments,
}

#[derive(Debug, Args)]
pub(super) struct NameArguments {
    /// The image's name, digest, or the start of its digest.
    name: String,
    #[command(flatten)]
    directory: DataDirArguments,
}

impl Command {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Load(arguments) => tokio::task::spawn_blocking(|| arguments.run()).await?,
            Self::Pull(arguments) => arguments.run().await,
            Self::Ls(arguments) => list(&store(&arguments)?),
            Self::Rm(arguments) => remove(&store(&arguments.directory)?, &arguments.name),
            Self::Inspect(arguments) => inspect(&store(&arguments.directory)?, &arguments.name),
        }
    }
}

fn store(arguments: &DataDirArguments) -> anyhow::Result<ImageStore> {
    let root = Config::images_dir(&arguments.data_dir()?.wasm());
    ImageStore::open(&root).with_context(|| format!("cannot open the images in {}", root.display()))
}

impl LoadArguments {
    fn run(self) -> anyhow::Result<()> {
        let loaded = store(&self.directory)?
            .load(&self.path, self.name.as_deref())
            .with_context(|| format!("cannot load {}", self.path.display()))?;
        say("loaded", &loaded);
        Ok(())
    }
}

impl PullArguments {
    async fn run(self) -> anyhow::Result<()> {
        let credentials = match (self.username, self.password_file) {
            (Some(username), Some(file)) => {
                let password = std::fs::read_to_string(&file)
                    .with_context(|| format!("cannot read {}", file.display()))?;
                Credentials::Basic { username, password: password.trim_end().to_owned() }
            }
            _ => Credentials::Anonymous,
        };
        let plain_http = if self.plain_http { PlainHttp::Always } else { PlainHttp::Loopback };
        let options = PullOptions { credentials, plain_http };
        let pulled = store(&self.directory)?
            .pull(&self.name, &options)
            .await
            .with_context(|| format!("cannot pull {}", self.name))?;
        say("pulled", &pulled);
        Ok(())
    }
}

#[expect(clippy::print_stdout, reason = "printing is what the command is for")]
fn say(done: &str, image: &ImageRecord) {
    println!("{done} {} ({})", image.names.join(", "), size(image.size_bytes));
}

#[expect(clippy::print_stdout, reason = "printing is what the command is for")]
fn list(store: &ImageStore) -> anyhow::Result<()> {
    let images = store.list()?;
    println!("{:<48} {:<20} {:>10}", "NAME", "DIGEST", "SIZE");
    for image in images {
        let digest: String = image.id.chars().take(19).collect();
        for name in &image.names {
            println!("{name:<48} {digest:<20} {:>10}", size(image.size_bytes));
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "printing is what the command is for")]
fn remove(store: &ImageStore, name: &str) -> anyhow::Result<()> {
    anyhow::ensure!(store.remove(name)?, "there is no image {name}; `wherry image ls` lists them");
    println!("removed {name}");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "printing is what the command is for")]
fn inspect(store: &ImageStore, name: &str) -> anyhow::Result<()> {
    let image = store
        .find(name)?
        .with_context(|| format!("there is no image {name}; `wherry image ls` lists them"))?;
    println!("{}", serde_json::to_string_pretty(&image)?);
    Ok(())
}

/// `76.4kB`, as container tools print sizes.
fn size(bytes: u64) -> String {
    let tenths = |unit: u64| format!("{}.{}", bytes / unit, bytes % unit * 10 / unit);
    match bytes {
        0..1_000 => format!("{bytes}B"),
        1_000..1_000_000 => format!("{}kB", tenths(1_000)),
        1_000_000..1_000_000_000 => format!("{}MB", tenths(1_000_000)),
        _ => format!("{}GB", tenths(1_000_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_printed_as_container_tools_print_them() {
        let table =
            [(0, "0B"), (999, "999B"), (76_413, "76.4kB"), (2_620_859, "2.6MB"), (13_000_000_000, "13.0GB")];
        for (bytes, text) in table {
            assert_eq!(size(bytes), text);
        }
    }
}
