//! A network namespace: a thread that lives in it.

use std::{process::Command, sync::mpsc, thread};

type Job = Box<dyn FnOnce() + Send>;

/// Whether namespaces can be made; says so loudly if not.
pub(crate) fn can_be_made(test: &str) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("\n*** SKIPPED: {test}: needs root to make network namespaces ***\n");
    }
    is_root
}

/// A network namespace with its loopback interface up. It is gone with the last socket in it.
pub(crate) struct Netns {
    jobs: mpsc::Sender<Job>,
    thread_id: i32,
}

impl Netns {
    pub(crate) fn new() -> Self {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (id_sender, id) = mpsc::channel();
        thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            id_sender.send(nix::unistd::gettid().as_raw()).unwrap();
            for job in inbox {
                job();
            }
        });
        let netns = Self { jobs, thread_id: id.recv().unwrap() };
        netns.ip("link set lo up");
        // Addresses are usable at once.
        netns.set("ipv6/conf/default/accept_dad", "0");
        netns.set("ipv6/conf/default/dad_transmits", "0");
        netns
    }

    /// Run in the namespace; sockets made there stay in it, wherever they are used.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, result) = mpsc::channel();
        self.jobs
            .send(Box::new(move || {
                let _gone = sender.send(work());
            }))
            .unwrap();
        result.recv().expect("the work panicked")
    }

    /// A command in the namespace, which must succeed; returns its output.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> String {
        let (program, arguments) =
            (program.to_owned(), arguments.iter().map(ToString::to_string).collect::<Vec<_>>());
        self.run(move || {
            let output = Command::new(&program).args(&arguments).output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program} {arguments:?}: {error}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    }

    pub(crate) fn ip(&self, words: &str) {
        self.command("ip", &words.split(' ').collect::<Vec<_>>());
    }

    pub(crate) fn set(&self, name: &str, value: &str) {
        let (path, value) = (format!("/proc/sys/net/{name}"), value.to_owned());
        self.run(move || std::fs::write(path, value)).unwrap();
    }

    /// A link to another namespace, whose end there is called `eth0`.
    pub(crate) fn link(&self, name: &str, other: &Self) {
        self.ip(&format!("link add {name} type veth peer name eth0 netns {}", other.thread_id));
        self.ip(&format!("link set {name} up"));
        other.ip("link set eth0 up");
    }
}
