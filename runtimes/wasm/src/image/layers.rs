//! Finding one file in the root file system that an image's tar layers make, without unpacking any of them.
//!
//! Only names are kept while a layer is read; nothing of a layer is ever written under the name it has in there.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::rc::Rc;

use super::manifest::in_root;
use super::{Error, MAX_LAYER_BYTES};

/// Most entries of all layers together; a root file system of a large distribution has some 100,000.
const MAX_ENTRIES: usize = 500_000;

/// Longest name of an entry, in bytes. Source: Linux's PATH_MAX.
const MAX_PATH_BYTES: usize = 4096;

/// Most bytes of headers before one entry; ordinary ones have some hundred.
const MAX_HEADERS_BYTES: u64 = 1 << 20;

/// Most links followed. Source: Linux gives up (ELOOP) after 40.
const MAX_LINKS: usize = 40;

const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

#[derive(Debug, PartialEq)]
enum Entry {
    File {
        layer: usize,
    },
    Directory,
    /// Where it points, as a path in the root.
    Link(String),
}

/// The tree of names that layers make, one on top of the other.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    entries: BTreeMap<String, Entry>,
    layers: usize,
}

impl Tree {
    /// Puts one layer on top.
    pub(crate) fn push_layer(&mut self, reader: Box<dyn Read>) -> Result<(), Error> {
        let layer = self.layers;
        self.layers += 1;
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        each_entry(reader, |path, entry| {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            let join =
                |name: &str| if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") };
            if name == OPAQUE {
                removed.push((parent.to_owned(), Below::Only));
            } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
                removed.push((join(hidden), Below::AndItself));
            } else {
                added.push((path.to_owned(), kind(layer, path, entry)?));
            }
            if self.entries.len() + added.len() + removed.len() > MAX_ENTRIES {
                return Err(Error::NotWasm(format!("its layers have more than {MAX_ENTRIES} entries")));
            }
            Ok(false)
        })?;
        for (path, what) in removed {
            self.remove(&path, what);
        }
        for (path, entry) in added {
            // What was a directory and is none any more hides what was in it.
            if entry != Entry::Directory {
                self.remove(&path, Below::AndItself);
            }
            self.entries.insert(path, entry);
        }
        Ok(())
    }

    fn remove(&mut self, path: &str, what: Below) {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let below: Vec<String> = self
            .entries
            .range(prefix.clone()..)
            .map(|(path, _)| path)
            .take_while(|path| path.starts_with(&prefix))
            .cloned()
            .collect();
        for path in below {
            self.entries.remove(&path);
        }
        if what == Below::AndItself {
            self.entries.remove(path);
        }
    }

    /// The layer that has the file, and the file's name in it, after links.
    pub(crate) fn resolve(&self, path: &str) -> Option<(usize, String)> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            match self.first_link(&path) {
                Some((at, target)) => {
                    let rest = path[at..].to_owned();
                    path = in_root("", &format!("{target}{rest}"));
                }
                None => {
                    return match self.entries.get(&path) {
                        Some(Entry::File { layer }) => Some((*layer, path)),
                        _ => None,
                    };
                }
            }
        }
        None
    }

    /// The shortest leading part that is a link: where it ends, and where it points.
    fn first_link(&self, path: &str) -> Option<(usize, &str)> {
        let ends = path.match_indices('/').map(|(at, _)| at).chain(std::iter::once(path.len()));
        ends.into_iter().find_map(|end| match self.entries.get(&path[..end]) {
            Some(Entry::Link(target)) => Some((end, target.as_str())),
            _ => None,
        })
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Below {
    Only,
    AndItself,
}

fn kind<R: Read>(layer: usize, path: &str, entry: &tar::Entry<'_, R>) -> Result<Entry, Error> {
    let header = entry.header().entry_type();
    if header.is_dir() {
        return Ok(Entry::Directory);
    }
    if !header.is_symlink() && !header.is_hard_link() {
        return Ok(Entry::File { layer });
    }
    let target = entry.link_name_bytes().unwrap_or_default();
    let target = std::str::from_utf8(&target)
        .map_err(|_| Error::NotWasm(format!("the link {path:?} has a target that is not UTF-8")))?;
    let parent =
        if header.is_hard_link() { "" } else { path.rsplit_once('/').map_or("", |(parent, _)| parent) };
    Ok(Entry::Link(in_root(parent, target)))
}

/// Calls `each` with the cleaned path of every entry, until it answers true.
fn each_entry<R: Read>(
    reader: R,
    mut each: impl FnMut(&str, &mut tar::Entry<'_, Headers<R>>) -> Result<bool, Error>,
) -> Result<(), Error> {
    let broken = |source| Error::File { action: "read a layer of", path: "the image".into(), source };
    let left = Rc::new(Cell::new(MAX_HEADERS_BYTES));
    let mut archive = tar::Archive::new(Headers { reader, left: Rc::clone(&left) });
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        left.set(u64::MAX);
        let is_sparse = entry.header().entry_type().is_gnu_sparse();
        let packed_bytes = entry.header().entry_size().map_err(broken)?;
        let name = entry.path_bytes().into_owned();
        if name.len() > MAX_PATH_BYTES {
            return Err(Error::TooLarge {
                what: "a path in a layer".to_owned(),
                limit_bytes: MAX_PATH_BYTES as u64,
            });
        }
        // A name that is not UTF-8 cannot be the entry point.
        let path = std::str::from_utf8(&name).map(|name| in_root("", name)).unwrap_or_default();
        if !path.is_empty() && each(&path, &mut entry)? {
            return Ok(());
        }
        // The content is passed over here, so that what is read next is headers; a sparse one unpacks to any size.
        if is_sparse {
            left.set(packed_bytes.saturating_add(MAX_HEADERS_BYTES));
        } else {
            std::io::copy(&mut entry, &mut std::io::sink()).map_err(broken)?;
            left.set(MAX_HEADERS_BYTES);
        }
    }
    Ok(())
}

/// Bounds what is read between the contents of two entries: extended headers are held in memory whole.
struct Headers<R> {
    reader: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Headers<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(buffer)?;
        match self.left.get().checked_sub(read as u64) {
            Some(left) => self.left.set(left),
            None => {
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "headers are too large"));
            }
        }
        Ok(read)
    }
}

/// Calls `with` with the content of the file of this name; the last one counts where a layer has several.
pub(crate) fn read_file(
    reader: Box<dyn Read>,
    wanted: &str,
    mut with: impl FnMut(&mut dyn Read) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut found = false;
    each_entry(reader, |path, entry| {
        if path == wanted && entry.header().entry_type().is_file() {
            found = true;
            with(entry)?;
        }
        Ok(false)
    })?;
    if found { Ok(()) } else { Err(Error::NotWasm(format!("{wanted:?} is not a regular file"))) }
}

/// A layer's tar, unpacked by what its first bytes say, and bounded.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read>, Error> {
    let mut file = std::fs::File::open(path).map_err(Error::file("open", path))?;
    let mut magic = Vec::new();
    file.by_ref().take(4).read_to_end(&mut magic).map_err(Error::file("read", path))?;
    let whole = std::io::Cursor::new(magic.clone()).chain(std::io::BufReader::new(file));
    let unpacked: Box<dyn Read> = match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            Box::new(zstd::stream::read::Decoder::new(whole).map_err(Error::file("unpack", path))?)
        }
        _ => Box::new(whole),
    };
    Ok(Box::new(unpacked.take(MAX_LAYER_BYTES)))
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Item<'a> {
        File(&'a str, &'a str),
        Symlink(&'a str, &'a str),
        HardLink(&'a str, &'a str),
        Dir(&'a str),
    }
    use Item::{Dir, File, HardLink, Symlink};

    fn layer(items: &[Item<'_>]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for item in items {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(0);
            let (path, target, content): (&str, Option<&str>, &[u8]) = match item {
                File(path, content) => {
                    header.set_size(content.len() as u64);
                    (path, None, content.as_bytes())
                }
                Symlink(path, target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    (path, Some(target), b"")
                }
                HardLink(path, target) => {
                    header.set_entry_type(tar::EntryType::Link);
                    (path, Some(target), b"")
                }
                Dir(path) => {
                    header.set_entry_type(tar::EntryType::Directory);
                    (path, None, b"")
                }
            };
            // Written raw: the builder itself refuses the hostile names that this test is about.
            let name = &mut header.as_old_mut().name;
            name[..path.len()].copy_from_slice(path.as_bytes());
            if let Some(target) = target {
                header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
            }
            header.set_cksum();
            builder.append(&header, content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn find(layers: &[Vec<u8>], wanted: &str) -> Option<String> {
        let mut tree = Tree::default();
        for bytes in layers {
            tree.push_layer(Box::new(std::io::Cursor::new(bytes.clone()))).unwrap();
        }
        let (index, path) = tree.resolve(wanted)?;
        let mut content = String::new();
        read_file(Box::new(std::io::Cursor::new(layers[index].clone())), &path, |reader| {
            content.clear();
            reader.read_to_string(&mut content).unwrap();
            Ok(())
        })
        .unwrap();
        Some(content)
    }

    #[test]
    fn upper_layers_replace_hide_and_bring_back() {
        let one = layer(&[Dir("bin/"), File("bin/app.wasm", "one"), File("other", "x")]);
        let two = layer(&[File("./bin/app.wasm", "two")]);
        let hidden = layer(&[File("bin/.wh.app.wasm", "")]);
        let opaque = layer(&[File("bin/.wh..wh..opq", ""), File("bin/new.wasm", "new")]);
        let dir_hidden = layer(&[File(".wh.bin", "")]);
        for (layers, expected) in [
            (vec![one.clone()], Some("one")),
            (vec![one.clone(), two.clone()], Some("two")),
            (vec![two.clone(), one.clone()], Some("one")),
            (vec![one.clone(), hidden.clone()], None),
            (vec![one.clone(), hidden, two.clone()], Some("two")),
            (vec![one.clone(), opaque], None),
            (vec![one.clone(), dir_hidden], None),
            (vec![one, layer(&[File("bin", "a file now")])], None),
        ] {
            assert_eq!(find(&layers, "bin/app.wasm").as_deref(), expected);
        }
    }

    #[test]
    fn links_are_followed_inside_the_root_and_never_for_ever() {
        let links = |target: &str| {
            layer(&[File("opt/real.wasm", "real"), Symlink("app.wasm", target), Symlink("lib", "opt")])
        };
        for target in ["opt/real.wasm", "/opt/real.wasm", "../../opt/real.wasm", "lib/real.wasm"] {
            assert_eq!(find(&[links(target)], "app.wasm").as_deref(), Some("real"), "{target}");
        }
        assert_eq!(find(&[links("app.wasm")], "app.wasm"), None);
        assert_eq!(find(&[links("/etc/passwd")], "app.wasm"), None);
        let hard = layer(&[File("a/real.wasm", "real"), HardLink("b.wasm", "a/real.wasm")]);
        assert_eq!(find(&[hard], "b.wasm").as_deref(), Some("real"));
    }

    #[test]
    fn a_name_that_climbs_stays_in_the_root() {
        let hostile = layer(&[File("../../etc/app.wasm", "inside")]);
        assert_eq!(find(&[hostile], "etc/app.wasm").as_deref(), Some("inside"));
    }

    #[test]
    fn a_long_name_without_end_is_refused_before_it_is_in_memory() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(MAX_HEADERS_BYTES * 2);
        header.set_cksum();
        builder.append(&header, std::io::repeat(b'a').take(MAX_HEADERS_BYTES * 2)).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_cksum();
        builder.append(&header, &b""[..]).unwrap();
        let bytes = builder.into_inner().unwrap();
        let error = Tree::default().push_layer(Box::new(std::io::Cursor::new(bytes))).unwrap_err();
        assert!(error.chain().contains("headers are too large"), "{}", error.chain());
    }
}
