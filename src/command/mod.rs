//! The command line: one file per subcommand.

mod apiserver;
mod component;
mod image;
mod kubeconfig;
mod kubelet;
mod network;
mod reset;
mod shutdown;
mod store;
mod up;
mod wasm_runtime;

use std::{future::Future, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use crate::{data_dir::DataDir, logging, version};

/// Kubernetes for WebAssembly pods and containers, in one binary.
///
/// `wherry up` starts a whole cluster and writes a kubeconfig for kubectl. Every component can also run alone.
#[derive(Debug, Parser)]
#[command(name = "wherry", version = version::LONG, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    log: LogArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct LogArguments {
    /// What is logged: a level, or a list such as `info,wherry_scheduler=debug`.
    #[arg(long, global = true, env = "WHERRY_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
    /// How it is logged.
    #[arg(long, global = true, value_enum, default_value_t = logging::Format::Text)]
    log_format: logging::Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a whole cluster in this process (and the Wasm runtime in one of its own).
    Up(up::Arguments),
    /// The API server alone.
    Apiserver(apiserver::Arguments),
    /// The scheduler alone, against a kubeconfig.
    Scheduler(component::ClusterArguments),
    /// The controllers alone, against a kubeconfig.
    Controllers(component::ControllersArguments),
    /// The kubelet alone, against a kubeconfig; it starts the Wasm runtime unless told where one is.
    Kubelet(kubelet::Arguments),
    /// The service proxy alone, against a kubeconfig.
    Proxy(component::ProxyArguments),
    /// Cluster DNS alone, against a kubeconfig.
    Dns(component::DnsArguments),
    /// The Wasm runtime alone: CRI v1 on a Unix socket.
    WasmRuntime(wasm_runtime::Arguments),
    /// Print a kubeconfig: the administrator's, or that of a component of a further node.
    Kubeconfig(kubeconfig::Arguments),
    /// End what a stopped or killed cluster has left on this machine: processes, mounts, routes, devices.
    Reset(reset::Arguments),
    /// Print the data directory that the other commands use.
    DataDir(DataDirArguments),
    /// The images that Wasm pods run.
    #[command(subcommand)]
    Image(image::Command),
}

/// Where a cluster keeps its files.
#[derive(Debug, Clone, Args)]
struct DataDirArguments {
    /// The data directory [default: /var/lib/wherry for root, ~/.local/share/wherry otherwise].
    #[arg(long, value_name = "DIR", env = "WHERRY_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

impl DataDirArguments {
    fn data_dir(&self) -> anyhow::Result<DataDir> {
        Ok(DataDir::new(self.data_dir.clone())?)
    }
}

/// Parse the command line and do what it says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wherry: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let LogArguments { log, log_format } = cli.log;
    logging::start(&log, log_format)?;
    match cli.command {
        // The runtime drops its privileges before it has a second thread.
        Command::WasmRuntime(arguments) => arguments.run(),
        Command::Kubeconfig(arguments) => arguments.print(),
        Command::Reset(arguments) => block_on(arguments.run()),
        Command::DataDir(arguments) => print_data_dir(&arguments.data_dir()?),
        Command::Up(arguments) => block_on(arguments.run(&log, log_format)),
        Command::Apiserver(arguments) => block_on(arguments.run()),
        Command::Scheduler(arguments) => block_on(arguments.scheduler()),
        Command::Controllers(arguments) => block_on(arguments.run()),
        Command::Kubelet(arguments) => block_on(arguments.run(&log, log_format)),
        Command::Proxy(arguments) => block_on(arguments.run()),
        Command::Dns(arguments) => block_on(arguments.run()),
        Command::Image(command) => block_on(command.run()),
    }
}

/// As many descriptors as the user may have: watches, connections of Services and files share them, and the usual 1024 of a
/// login are soon gone. Fewer are no reason not to start.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::debug!(%error, "cannot raise the limit of descriptors");
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let result = runtime.block_on(work);
    // What is left are blocking calls that nobody waits for any more.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}

#[expect(clippy::print_stdout, reason = "printing is what the command is for")]
fn print_data_dir(data_dir: &DataDir) -> anyhow::Result<()> {
    println!("{}", data_dir.root().display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
