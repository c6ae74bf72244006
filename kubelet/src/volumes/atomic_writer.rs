//! Files of a volume replaced all at once: Kubernetes' AtomicWriter.
//!
//! The files live in a directory named after the time; `..data` is a symbolic link to it, and every visible name is a
//! symbolic link through `..data`. Renaming the link changes all files in one step.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::jiff::Timestamp;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// One file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContent {
    /// Bytes.
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// Files by path relative to the volume.
pub type Payload = BTreeMap<String, FileContent>;

/// Whether a path may be in a payload: relative, without `..`, and not starting with `..`.
pub fn is_valid_path(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= 4096
        && !path.starts_with("..")
        && !path.ends_with('/')
        && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
        && path.split('/').all(|part| !part.is_empty() && part.len() <= 255)
}

/// Makes `target` hold exactly `payload`; says whether anything was written. Files are `owner`'s, so that their modes let it read
/// them; directories stay the kubelet's, so that nobody else can put a link where it writes.
///
/// Cancellation: a half-written new directory is removed by the next call; readers never see it.
pub fn write(target: &Path, payload: &Payload, owner: Option<u32>, now: Timestamp) -> io::Result<bool> {
    if let Some(bad) = payload.keys().find(|path| !is_valid_path(path)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path in volume: {bad:?}")));
    }
    let data = target.join(DATA);
    let old = match fs::read_link(&data) {
        Ok(link) => Some(link),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let Some(old) = &old
        && holds(&target.join(old), payload)?
    {
        link_names(target, payload)?;
        return Ok(false);
    }

    let fresh = make_directory(target, now)?;
    for (path, file) in payload {
        let file_path = fresh.join(path);
        if let Some(parent) = file_path.parent().filter(|parent| *parent != fresh) {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        fs::write(&file_path, &file.data)?;
        fs::set_permissions(&file_path, fs::Permissions::from_mode(file.mode))?;
        chown(&file_path, owner)?;
    }

    let Some(name) = fresh.file_name() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let new_data = target.join(NEW_DATA);
    remove_if_there(&new_data)?;
    symlink(name, &new_data)?;
    fs::rename(&new_data, &data)?;
    link_names(target, payload)?;
    remove_stale_names(target, payload)?;
    remove_other_directories(target, &fresh)?;
    Ok(true)
}

fn holds(directory: &Path, payload: &Payload) -> io::Result<bool> {
    let mut seen = BTreeSet::new();
    let mut open = vec![PathBuf::new()];
    while let Some(relative) = open.pop() {
        let entries = match fs::read_dir(directory.join(&relative)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let path = relative.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                open.push(path);
                continue;
            }
            let Some(name) = path.to_str() else { return Ok(false) };
            let Some(wanted) = payload.get(name) else { return Ok(false) };
            let mode = entry.metadata()?.permissions().mode() & 0o7777;
            if mode != wanted.mode || fs::read(entry.path())? != wanted.data {
                return Ok(false);
            }
            seen.insert(name.to_owned());
        }
    }
    Ok(seen.len() == payload.len())
}

fn make_directory(target: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let stamp = now.strftime("..%Y_%m_%d_%H_%M_%S.");
    for attempt in 0..1000_u32 {
        let path =
            target.join(format!("{stamp}{}", now.subsec_nanosecond().unsigned_abs().wrapping_add(attempt)));
        match fs::DirBuilder::new().mode(0o755).create(&path) {
            Ok(()) => {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
                return Ok(path);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn first_element(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

fn link_names(target: &Path, payload: &Payload) -> io::Result<()> {
    for name in payload.keys().map(|path| first_element(path)).collect::<BTreeSet<_>>() {
        let link = target.join(name);
        let wanted = Path::new(DATA).join(name);
        match fs::read_link(&link) {
            Ok(present) if present == wanted => {}
            Ok(_) => {
                fs::remove_file(&link)?;
                symlink(&wanted, &link)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => symlink(&wanted, &link)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn remove_stale_names(target: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<&str> = payload.keys().map(|path| first_element(path)).collect();
    for entry in fs::read_dir(target)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(|name| name.starts_with("..") || wanted.contains(name));
        if !is_ours && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn remove_other_directories(target: &Path, kept: &Path) -> io::Result<()> {
    for entry in fs::read_dir(target)? {
        let entry = entry?;
        let is_stamped =
            entry.file_name().to_str().is_some_and(|name| name.starts_with("..2") || name.starts_with("..1"));
        if is_stamped && entry.file_type()?.is_dir() && entry.path() != kept {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Gives a file or directory to `owner`, when there is one. Links are not followed.
pub fn chown(path: &Path, owner: Option<u32>) -> io::Result<()> {
    match owner {
        Some(uid) => std::os::unix::fs::lchown(path, Some(uid), Some(uid)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(path, data)| {
                ((*path).to_owned(), FileContent { data: data.as_bytes().to_vec(), mode: 0o644 })
            })
            .collect()
    }

    #[test]
    fn files_change_all_at_once_and_stale_names_go() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path();
        let now = Timestamp::now();
        assert!(write(target, &payload(&[("a", "1"), ("dir/b", "2")]), None, now).unwrap());
        let first = fs::read_link(target.join(DATA)).unwrap();
        assert_eq!(fs::read_to_string(target.join("dir/b")).unwrap(), "2");
        assert_eq!(fs::read_link(target.join("a")).unwrap(), Path::new("..data/a"));

        assert!(!write(target, &payload(&[("a", "1"), ("dir/b", "2")]), None, now).unwrap());
        assert_eq!(fs::read_link(target.join(DATA)).unwrap(), first);

        assert!(write(target, &payload(&[("a", "new"), ("c", "3")]), None, now).unwrap());
        assert_ne!(fs::read_link(target.join(DATA)).unwrap(), first);
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "new");
        assert_eq!(fs::read_to_string(target.join("c")).unwrap(), "3");
        assert!(!target.join("dir").exists());
        assert!(!target.join(first).exists());
    }

    #[test]
    fn modes_are_those_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let payload = [("a".to_owned(), FileContent { data: vec![1], mode: 0o400 })].into();
        write(directory.path(), &payload, None, Timestamp::now()).unwrap();
        assert_eq!(fs::metadata(directory.path().join("a")).unwrap().permissions().mode() & 0o7777, 0o400);
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for bad in ["", "/etc/passwd", "../x", "a/../../x", "..data", "a//b", "a/", "./a"] {
            assert!(!is_valid_path(bad), "{bad}");
        }
        for good in ["a", "a/b/c", "a..b", ".hidden", "a/..b"] {
            assert!(is_valid_path(good), "{good}");
        }
    }
}
