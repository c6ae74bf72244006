//! `wherry image …`: the images that pods run, Wasm guests and containers alike.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use wherry_runtime_cri::Client;
use wherry_runtime_wasm::{
    Config,
    image::{Credentials, Error, ImageKind, ImageRecord, ImageStore, PlainHttp, PullOptions, kind_of},
};
use wherry_runtimes::{AuthConfig, Image, ImageService as _, ImageSpec, PodSandboxConfig};

use super::DataDirArguments;
use crate::{containerd, node};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Load a .wasm file, an OCI layout (a directory or a tar), or what `docker save` writes.
    Load(LoadArguments),
    /// Pull an image from a registry.
    Pull(PullArguments),
    /// List the images.
    #[command(alias = "list")]
    Ls(StoresArguments),
    /// Remove an image.
    #[command(alias = "remove")]
    Rm(NameArguments),
    /// Show an image as JSON.
    Inspect(NameArguments),
}

/// Where images are.
#[derive(Debug, Args)]
pub(super) struct StoresArguments {
    #[command(flatten)]
    directory: DataDirArguments,
    /// The CRI endpoint that has the images of containers [default: the containerd that the node uses].
    #[arg(long, value_name = "unix:///PATH")]
    container_runtime_endpoint: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct LoadArguments {
    /// The file or directory.
    path: PathBuf,
    /// The image's name, such as `hello:v1`; an OCI layout may bring its own.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    stores: StoresArguments,
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
    stores: StoresArguments,
}

#[derive(Debug, Args)]
pub(super) struct NameArguments {
    /// The image's name, digest, or the start of its digest.
    name: String,
    #[command(flatten)]
    stores: StoresArguments,
}

impl Command {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Load(arguments) => arguments.run().await,
            Self::Pull(arguments) => arguments.run().await,
            Self::Ls(stores) => list(&stores).await,
            Self::Rm(arguments) => remove(&arguments.stores, &arguments.name).await,
            Self::Inspect(arguments) => inspect(&arguments.stores, &arguments.name).await,
        }
    }
}

impl StoresArguments {
    fn guests(&self) -> anyhow::Result<ImageStore> {
        let root = Config::images_dir(&self.directory.data_dir()?.wasm());
        ImageStore::open(&root).with_context(|| format!("cannot open the images in {}", root.display()))
    }

    /// The container runtime, where there is one.
    async fn containers(&self) -> anyhow::Result<Option<Client>> {
        let data_dir = self.directory.data_dir()?;
        let endpoint = match &self.container_runtime_endpoint {
            Some(endpoint) => Some(endpoint.clone()),
            None => containerd::endpoint_in_use(&data_dir).await,
        };
        endpoint
            .map(|endpoint| {
                Client::connect(&endpoint).with_context(|| format!("cannot use the endpoint {endpoint}"))
            })
            .transpose()
    }
}

impl LoadArguments {
    async fn run(self) -> anyhow::Result<()> {
        let store = self.stores.guests()?;
        let (path, name) = (self.path.clone(), self.name.clone());
        let loaded = tokio::task::spawn_blocking(move || store.load(&path, name.as_deref())).await?;
        let error = match loaded {
            Ok(image) => {
                say_guest("loaded", &image);
                return Ok(());
            }
            Err(error) => error,
        };
        let no_guest = format!("cannot load {}", self.path.display());
        if !matches!(error, Error::NotWasm(_) | Error::UnknownFormat(_)) {
            return Err(error).context(no_guest);
        }
        let Some(containers) = self.stores.containers().await? else {
            return Err(error)
                .context(no_guest)
                .context("it is not for Wasm pods, and no containerd answers");
        };
        let scratch = tempfile::tempdir_in(scratch(&self.stores)?)?;
        let images = containers
            .import(&self.path, self.name.as_deref(), scratch.path())
            .await
            .with_context(|| format!("cannot load {} as a container image", self.path.display()))?;
        for image in images {
            say("loaded", &image.name, image.size_bytes);
        }
        Ok(())
    }
}

/// Where archives are unpacked: beside the images, where there is room for images.
fn scratch(stores: &StoresArguments) -> anyhow::Result<PathBuf> {
    let directory = stores.directory.data_dir()?.run();
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make the directory {}", directory.display()))?;
    Ok(directory)
}

impl PullArguments {
    async fn run(self) -> anyhow::Result<()> {
        let auth = match (self.username, self.password_file) {
            (Some(username), Some(file)) => {
                let password = std::fs::read_to_string(&file)
                    .with_context(|| format!("cannot read {}", file.display()))?;
                Some(AuthConfig { username, password: password.trim_end().to_owned(), ..Default::default() })
            }
            _ => None,
        };
        let plain_http = if self.plain_http { PlainHttp::Always } else { PlainHttp::Loopback };
        let options = PullOptions { credentials: Credentials::of(auth.as_ref())?, plain_http };
        if let Some(containers) = self.stores.containers().await?
            && matches!(kind_of(&self.name, &options).await, Ok(ImageKind::Container))
        {
            let spec = ImageSpec { image: self.name.clone(), ..ImageSpec::default() };
            let pulled = containers.pull_image(&spec, auth.as_ref(), &PodSandboxConfig::default()).await;
            pulled.with_context(|| format!("containerd cannot pull {}", self.name))?;
            let size_bytes = containers.image_status(&spec).await?.map_or(0, |image| image.size);
            say("pulled", &self.name, size_bytes);
            return Ok(());
        }
        let pulled = self
            .stores
            .guests()?
            .pull(&self.name, &options)
            .await
            .with_context(|| format!("cannot pull {}", self.name))?;
        say_guest("pulled", &pulled);
        Ok(())
    }
}

fn say_guest(done: &str, image: &ImageRecord) {
    say(done, &image.names.join(", "), image.size_bytes);
}

#[expect(clippy::print_stdout, reason = "printing is what the command is for")]
fn say(done: &str, names: &str, size_bytes: u64) {
    println!("{done} {names} ({})", size(size_bytes));
}

#[expect(clippy::print_stdout, reason = "printing is what the command is for")]
async fn list(stores: &StoresArguments) -> anyhow::Result<()> {
    println!("{:<48} {:<20} {:>10} RUNTIME", "NAME", "DIGEST", "SIZE");
    let line = |name: &str, id: &str, bytes: u64, runtime: &str| {
        let digest: String = id.chars().take(19).collect();
        println!("{name:<48} {digest:<20} {:>10} {runtime}", size(bytes));
    };
    for image in stores.guests()?.list()? {
        for name in &image.names {
            line(name, &image.id, image.size_bytes, node::WASM_HANDLER);
        }
    }
    let Some(containers) = stores.containers().await? else { return Ok(()) };
    let images = containers.list_images(&ImageSpec::default()).await;
    let mut images = images.context("containerd does not list its images")?;
    images.sort_by(|a, b| a.repo_tags.cmp(&b.repo_tags));
    for image in images {
        let names = if image.repo_tags.is_empty() { &image.repo_digests } else { &image.repo_tags };
        for name in names {
            line(name, &image.id, image.size, containerd::HANDLER);
        }
    }
    Ok(())
}

async fn container_image(stores: &StoresArguments, name: &str) -> anyhow::Result<Option<(Client, Image)>> {
    let Some(containers) = stores.containers().await? else { return Ok(None) };
    let spec = ImageSpec { image: name.to_owned(), ..ImageSpec::default() };
    let found = containers.image_status(&spec).await.context("containerd does not answer for its images")?;
    Ok(found.map(|image| (containers, image)))
}

#[expect(clippy::print_stdout, reason = "printing is what the command is for")]
async fn remove(stores: &StoresArguments, name: &str) -> anyhow::Result<()> {
    if !stores.guests()?.remove(name)? {
        let found = container_image(stores, name).await?;
        let (containers, image) =
            found.with_context(|| format!("there is no image {name}; `wherry image ls` lists them"))?;
        let spec = ImageSpec { image: image.id, ..ImageSpec::default() };
        containers.remove_image(&spec).await.with_context(|| format!("containerd cannot remove {name}"))?;
    }
    println!("removed {name}");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "printing is what the command is for")]
async fn inspect(stores: &StoresArguments, name: &str) -> anyhow::Result<()> {
    if let Some(image) = stores.guests()?.find(name)? {
        println!("{}", serde_json::to_string_pretty(&image)?);
        return Ok(());
    }
    let found = container_image(stores, name).await?;
    let (_, image) =
        found.with_context(|| format!("there is no image {name}; `wherry image ls` lists them"))?;
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
