//! The `wherry` binary.

fn main() -> std::process::ExitCode {
    wherry::command::main()
}
