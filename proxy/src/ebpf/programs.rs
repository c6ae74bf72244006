//! The programs: loaded, attached to a cgroup, and pinned so that they outlive this process.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader, include_bytes_aligned,
    maps::{Map, MapData, MapError},
    pin::PinError,
    programs::{
        CgroupAttachMode, CgroupSockAddr, ProgramError,
        cgroup_sock_addr::CgroupSockAddrLink,
        links::{FdLink, LinkError, PinnedLink},
    },
};
use sha2::{Digest as _, Sha256};

use super::{
    Place,
    layout::LAYOUT,
    maps::{self, Maps},
};

/// Compiled from `bpf/sockets.bpf.c` by `make bpf`.
static OBJECT: &[u8] = include_bytes_aligned!("../../bpf/sockets.bpf.o");

/// The programs, named for the hook of the cgroup each is attached to.
const PROGRAMS: [&str; 8] =
    ["connect4", "connect6", "sendmsg4", "sendmsg6", "recvmsg4", "recvmsg6", "getpeername4", "getpeername6"];

/// Why sockets cannot be balanced.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `/proc` could not be read.
    #[error("cannot see what is mounted")]
    Mounts(#[source] io::Error),
    /// There is no cgroup to attach to.
    #[error("no cgroup v2 hierarchy is mounted")]
    NoCgroup,
    /// Everybody's sockets would be served, also those of networks in which the Services mean something else.
    #[error(
        "this process has a network of its own, but sees the control groups of the whole machine: name one"
    )]
    OthersSockets,
    /// The cgroup could not be opened.
    #[error("cannot open cgroup {path}")]
    Cgroup {
        /// Its directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel does not take the maps or the programs; it must be 5.18 or newer, and the process privileged.
    #[error("cannot load the programs")]
    Load(#[source] Box<EbpfError>),
    /// The kernel does not take a program.
    #[error("cannot load program {program}")]
    Program {
        /// Which.
        program: &'static str,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// A program could not be attached.
    #[error("cannot attach program {program}")]
    Attach {
        /// Which.
        program: &'static str,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// A link could not be kept.
    #[error("cannot keep program {program} attached")]
    Link {
        /// Whose.
        program: &'static str,
        /// Why.
        #[source]
        source: LinkError,
    },
    /// A link or map could not be pinned.
    #[error("cannot pin {path}")]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: PinError,
    },
    /// The directory of pins could not be changed.
    #[error("cannot change {path}")]
    PinDirectory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A map is not what it should be.
    #[error("cannot open the maps")]
    Maps(#[source] MapError),
}

/// Programs in force, or about to be.
pub(super) struct Programs {
    place: Place,
    state: Attachment,
}

enum Attachment {
    /// Maps exist and can be filled; no socket is served yet.
    Loaded(Box<Ebpf>),
    /// Sockets are served.
    Attached {
        /// They end with this.
        #[expect(dead_code, reason = "held: dropping a link detaches its program, unless it is pinned")]
        links: Vec<KeptLink>,
    },
}

#[expect(dead_code, reason = "held: dropping a link detaches its program, unless it is pinned")]
enum KeptLink {
    Pinned(PinnedLink),
    Own(CgroupSockAddrLink),
}

impl Programs {
    /// Take over what a former run left at that place, or load anew. What is new serves nobody before [`Self::attach`].
    pub(super) fn open(place: Place) -> Result<(Self, Maps), Error> {
        if let Some((links, maps)) = taken_over(&place)? {
            tracing::debug!(cgroup = %place.cgroup.display(), "the programs of the former run serve on");
            return Ok((Self { place, state: Attachment::Attached { links } }, maps));
        }
        let mut loader = EbpfLoader::new();
        let directory = place.pins.as_deref().map(maps_directory);
        if let Some(directory) = &directory {
            fs::create_dir_all(directory).map_err(|source| pin_directory(directory, source))?;
            for name in maps::ALL {
                loader.map_pin_path(name, directory.join(name));
            }
        }
        // No program needs to know the kernel's own types.
        let mut ebpf = loader.btf(None).load(OBJECT).map_err(|error| Error::Load(Box::new(error)))?;
        let opened =
            Maps::open(|name| ebpf.take_map(name).ok_or(MapError::KeyNotFound)).map_err(Error::Maps)?;
        load(&mut ebpf)?;
        Ok((Self { place, state: Attachment::Loaded(Box::new(ebpf)) }, opened))
    }

    /// Serve the sockets of the cgroup from now on. Programs of another version go afterwards: where both are attached, the
    /// first replaces an address and the second finds nothing to replace.
    pub(super) fn attach(&mut self) -> Result<(), Error> {
        let Attachment::Loaded(ebpf) = &mut self.state else { return Ok(()) };
        let cgroup = open_cgroup(&self.place.cgroup)?;
        let directory = match &self.place.pins {
            Some(pins) => Some(links_directory(pins, &cgroup, &self.place.cgroup)?),
            None => None,
        };
        if let Some(directory) = &directory {
            remove(directory)?;
            fs::create_dir_all(directory).map_err(|source| pin_directory(directory, source))?;
        }
        let mut links = Vec::with_capacity(PROGRAMS.len());
        for name in PROGRAMS {
            let attach_error = |source| Error::Attach { program: name, source: Box::new(source) };
            let program = program(ebpf, name)?;
            // A link always runs beside other programs; the kernel refuses to be told so.
            let id = program.attach(&cgroup, CgroupAttachMode::Single).map_err(attach_error)?;
            let link = program.take_link(id).map_err(attach_error)?;
            links.push(match &directory {
                None => KeptLink::Own(link),
                Some(directory) => {
                    let link =
                        FdLink::try_from(link).map_err(|source| Error::Link { program: name, source })?;
                    let path = directory.join(name);
                    KeptLink::Pinned(link.pin(&path).map_err(|source| Error::Pin { path, source })?)
                }
            });
        }
        self.state = Attachment::Attached { links };
        if let (Some(pins), Some(directory)) = (&self.place.pins, &directory) {
            remove_others(&maps_directory(pins), directory, "links-")?;
            remove_others(pins, &maps_directory(pins), "layout-")?;
        }
        Ok(())
    }

    /// Whether the pins are where they were made, so that a restart will find them.
    pub(super) fn is_in_place(&self) -> bool {
        let (Some(pins), Attachment::Attached { .. }) = (&self.place.pins, &self.state) else { return true };
        let directory = open_cgroup(&self.place.cgroup)
            .and_then(|cgroup| links_directory(pins, &cgroup, &self.place.cgroup));
        directory.is_ok_and(|directory| PROGRAMS.iter().all(|name| directory.join(name).exists()))
            && maps::ALL.iter().all(|name| maps_directory(pins).join(name).exists())
    }
}

/// Whether the kernel takes the programs. Nothing stays.
pub(super) fn probe(cgroup: &Path) -> Result<(), Error> {
    open_cgroup(cgroup)?;
    let mut ebpf = EbpfLoader::new().btf(None).load(OBJECT).map_err(|error| Error::Load(Box::new(error)))?;
    load(&mut ebpf)
}

/// Detach and remove what is pinned there.
pub(super) fn clean_up(pins: &Path) -> Result<(), Error> {
    remove(pins)
}

fn load(ebpf: &mut Ebpf) -> Result<(), Error> {
    for name in PROGRAMS {
        let loaded = program(ebpf, name)?.load();
        loaded.map_err(|source| Error::Program { program: name, source: Box::new(source) })?;
    }
    Ok(())
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut CgroupSockAddr, Error> {
    let program = ebpf.program_mut(name).ok_or(ProgramError::NotLoaded);
    program
        .and_then(TryInto::try_into)
        .map_err(|source| Error::Program { program: name, source: Box::new(source) })
}

/// The links and maps of a former run of this very version at this very cgroup, if all are there.
fn taken_over(place: &Place) -> Result<Option<(Vec<KeptLink>, Maps)>, Error> {
    let Some(pins) = &place.pins else { return Ok(None) };
    let cgroup = open_cgroup(&place.cgroup)?;
    let directory = links_directory(pins, &cgroup, &place.cgroup)?;
    let links: Result<Vec<KeptLink>, LinkError> = PROGRAMS
        .iter()
        .map(|name| PinnedLink::from_pin(directory.join(name)).map(KeptLink::Pinned))
        .collect();
    let Ok(links) = links else { return Ok(None) };
    let directory = maps_directory(pins);
    let maps: Result<HashMap<&str, Map>, MapError> = maps::ALL
        .iter()
        .map(|name| Ok((*name, Map::from_map_data(MapData::from_pin(directory.join(name))?)?)))
        .collect();
    let Ok(mut maps) = maps else { return Ok(None) };
    let maps = Maps::open(|name| maps.remove(name).ok_or(MapError::KeyNotFound));
    Ok(maps.ok().map(|maps| (links, maps)))
}

fn open_cgroup(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| Error::Cgroup { path: path.to_owned(), source })
}

fn maps_directory(pins: &Path) -> PathBuf {
    pins.join(format!("layout-{LAYOUT}"))
}

/// Named for what it holds: the programs' version, and the cgroup (its inode number is its id, which is not used again).
fn links_directory(pins: &Path, cgroup: &File, path: &Path) -> Result<PathBuf, Error> {
    let metadata = cgroup.metadata().map_err(|source| Error::Cgroup { path: path.to_owned(), source })?;
    let mut name = "links-".to_owned();
    for byte in &Sha256::digest(OBJECT)[..6] {
        // Writing to a String does not fail.
        let _ = write!(name, "{byte:02x}");
    }
    let _ = write!(name, "-{:x}", metadata.ino());
    Ok(maps_directory(pins).join(name))
}

fn remove_others(directory: &Path, keep: &Path, prefix: &str) -> Result<(), Error> {
    let failed = |source| pin_directory(directory, source);
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.path() != keep && entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(directory: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(directory) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(pin_directory(directory, source)),
        _ => Ok(()),
    }
}

fn pin_directory(path: &Path, source: io::Error) -> Error {
    Error::PinDirectory { path: path.to_owned(), source }
}
