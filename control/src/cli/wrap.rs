//! `xlvs wrap`: runs an unmodified program that speaks IPVS's netlink with `libxlvs_preload.so` in it, so that it drives the
//! daemon. What the library can't reach (static, set-uid programs) is refused: such a program would talk to the kernel.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Failure;

const LIBRARY: &str = "libxlvs_preload.so";
/// Names the library, where it lies elsewhere.
const LIBRARY_VARIABLE: &str = "XLVS_PRELOAD";
/// The directory of the installed library, seen from the executable's.
const INSTALLED: &str = "../lib/xlvs";
/// A script's interpreter may be a script, so often in the kernel.
const MAX_INTERPRETERS: usize = 5;
/// What is looked at of a file: an ELF file's program headers follow its header.
const HEAD_BYTES: u64 = 64 << 10;

/// Runs a program in this one's place.
///
/// # Errors
/// When the library or the program is not found, the library can't be loaded into it, or it can't be run.
pub(crate) fn wrap(socket: &Path, command: &[OsString]) -> Result<(), Failure> {
    let Some((name, arguments)) = command.split_first() else {
        return Err(Failure::Runtime("no program is given".to_owned()));
    };
    let library = library(env::var_os(LIBRARY_VARIABLE), env::current_exe().ok().as_deref())?;
    let program = find(name, env::var_os("PATH").as_deref())?;
    reachable(&program)?;
    let socket = std::path::absolute(socket)
        .map_err(|error| Failure::Runtime(format!("the current directory is not known: {error}")))?;
    let error = Command::new(&program)
        .arg0(name)
        .args(arguments)
        .env("LD_PRELOAD", preload(env::var_os("LD_PRELOAD").as_deref(), &library))
        .env("XLVS_SOCKET", socket)
        .exec();
    Err(Failure::Runtime(format!("{} can't be run: {error}", program.display())))
}

/// Where the library is: as `named`, or near the executable.
fn library(named: Option<OsString>, executable: Option<&Path>) -> Result<PathBuf, Failure> {
    let named = named.filter(|path| !path.is_empty()).map(PathBuf::from);
    let places = match &named {
        Some(path) => vec![path.clone()],
        None => {
            let folder = executable.and_then(Path::parent).unwrap_or(Path::new("/usr/bin"));
            vec![folder.join(LIBRARY), folder.join(INSTALLED).join(LIBRARY)]
        }
    };
    let Some(found) = places.iter().find(|place| place.is_file()) else {
        let looked: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
        return Err(Failure::Runtime(match named {
            Some(_) => format!("{LIBRARY_VARIABLE} names {}, which is no file", looked.join("")),
            None => format!(
                "{LIBRARY} was not found; looked for {}. Install it there (`cargo build --release -p xlvs-preload` builds \
                 it), or name it by {LIBRARY_VARIABLE}",
                looked.join(" and ")
            ),
        }));
    };
    let found = fs::canonicalize(found)
        .map_err(|error| Failure::Runtime(format!("{} can't be used: {error}", found.display())))?;
    if found.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b':' | b' ')) {
        return Err(Failure::Runtime(format!(
            "the library's path {} has a colon or a space, which LD_PRELOAD can't hold: move it",
            found.display()
        )));
    }
    Ok(found)
}

/// The value of LD_PRELOAD: what it was, and the library.
fn preload(former: Option<&OsStr>, library: &Path) -> OsString {
    match former.filter(|former| !former.is_empty()) {
        None => library.into(),
        Some(former) => {
            let mut list = former.to_owned();
            let is_listed = former
                .as_bytes()
                .split(|byte| matches!(byte, b':' | b' '))
                .any(|entry| entry == library.as_os_str().as_bytes());
            if !is_listed {
                list.push(":");
                list.push(library);
            }
            list
        }
    }
}

/// The file of a program, as a shell finds it.
fn find(name: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, Failure> {
    let is_program =
        |file: &Path| fs::metadata(file).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0);
    if name.as_bytes().contains(&b'/') {
        let file = PathBuf::from(name);
        return match fs::metadata(&file) {
            Ok(_) if is_program(&file) => Ok(file),
            Ok(_) => Err(Failure::Runtime(format!("{} is not an executable file", file.display()))),
            Err(error) => Err(Failure::Runtime(format!("{}: {error}", file.display()))),
        };
    }
    let path = path.unwrap_or(OsStr::new("/usr/sbin:/usr/bin:/sbin:/bin"));
    env::split_paths(path).map(|folder| folder.join(name)).find(|file| is_program(file)).ok_or_else(|| {
        Failure::Runtime(format!(
            "the program {} was not found; looked in PATH={}",
            name.display(),
            path.display()
        ))
    })
}

/// Whether the dynamic loader will put a library into a program.
fn reachable(program: &Path) -> Result<(), Failure> {
    let mut file = program.to_owned();
    for _ in 0..MAX_INTERPRETERS {
        let failed = |error| Failure::Runtime(format!("{} can't be read: {error}", file.display()));
        let metadata = fs::metadata(&file).map_err(failed)?;
        let mut head = Vec::new();
        match File::open(&file).and_then(|opened| opened.take(HEAD_BYTES).read_to_end(&mut head)) {
            // A program may be run by those who may not read it; then it is seen when it runs.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Ok(()),
            other => other.map_err(failed)?,
        };
        match kind(&head) {
            Kind::Script(interpreter) => {
                file = interpreter;
                continue;
            }
            Kind::Dynamic => {}
            Kind::Static => {
                return Err(Failure::Runtime(format!(
                    "{} is statically linked: no library can be loaded into it, and it would talk to the kernel instead \
                     of the daemon. Use a dynamically linked build of it",
                    file.display()
                )));
            }
            Kind::Foreign => {
                return Err(Failure::Runtime(format!(
                    "{} is no program of this machine's kind ({}): the library can't be loaded into it",
                    file.display(),
                    env::consts::ARCH
                )));
            }
            Kind::Unknown => return Ok(()),
        }
        if gains_rights(&metadata, &file) {
            return Err(Failure::Runtime(format!(
                "{} is set-uid, set-gid or has file capabilities: the dynamic loader loads no library into it for this \
                 user. Run `xlvs wrap` as root",
                file.display()
            )));
        }
        return Ok(());
    }
    Err(Failure::Runtime(format!("{}: more than {MAX_INTERPRETERS} interpreters", program.display())))
}

/// Whether a program has rights that this user hasn't, so that it is run in the loader's secure mode.
fn gains_rights(program: &Metadata, file: &Path) -> bool {
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    let set_uid = program.mode() & 0o4000 != 0 && program.uid() != user.as_raw();
    let set_gid = program.mode() & 0o2000 != 0 && program.gid() != group.as_raw();
    let mut capability = [0_u8; 64];
    let capable =
        !user.is_root() && rustix::fs::getxattr(file, "security.capability", &mut capability).is_ok();
    set_uid || set_gid || capable
}

/// What a file is to the dynamic loader.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// Run by an interpreter.
    Script(PathBuf),
    /// Loaded by it.
    Dynamic,
    /// Run without it.
    Static,
    /// Of another architecture.
    Foreign,
    /// Neither ELF nor script.
    Unknown,
}

fn kind(head: &[u8]) -> Kind {
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
        let interpreter = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        return Kind::Script(OsStr::from_bytes(interpreter).into());
    }
    if !head.starts_with(b"\x7fELF") {
        return Kind::Unknown;
    }
    // 64 bits, this byte order and machine: the fields are read so.
    let order = if cfg!(target_endian = "little") { 1 } else { 2 };
    let machine = match env::consts::ARCH {
        "x86_64" => Some(62),
        "aarch64" => Some(183),
        _ => u16_at(head, 18),
    };
    if head.get(4..6) != Some(&[2, order]) || u16_at(head, 18) != machine {
        return Kind::Foreign;
    }
    const PT_INTERP: [u8; 4] = 3_u32.to_ne_bytes();
    let first = head.get(32..40).and_then(|bytes| Some(u64::from_ne_bytes(bytes.try_into().ok()?)));
    let (Some(first), Some(size), Some(count)) =
        (first.and_then(|first| usize::try_from(first).ok()), u16_at(head, 54), u16_at(head, 56))
    else {
        return Kind::Unknown;
    };
    let is_interpreted = (0..usize::from(count)).any(|index| {
        let header = first.checked_add(index * usize::from(size)).and_then(|offset| head.get(offset..));
        header.is_some_and(|header| header.starts_with(&PT_INTERP))
    });
    if is_interpreted { Kind::Dynamic } else { Kind::Static }
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(offset..)?.first_chunk().copied()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_library_is_appended_once() {
        let library = Path::new("/lib/x.so");
        for (former, expected) in [
            (None, "/lib/x.so"),
            (Some(""), "/lib/x.so"),
            (Some("/a.so"), "/a.so:/lib/x.so"),
            (Some("/a.so /lib/x.so"), "/a.so /lib/x.so"),
            (Some("/lib/x.so.1"), "/lib/x.so.1:/lib/x.so"),
        ] {
            assert_eq!(preload(former.map(OsStr::new), library), expected, "{former:?}");
        }
    }

    #[test]
    fn the_library_is_found_near_the_executable_or_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let executable = root.join("bin/xlvs");
        let places =
            [root.join("bin").join(LIBRARY), root.join("lib/xlvs").join(LIBRARY), root.join("other.so")];
        let none = library(None, Some(&executable)).unwrap_err().to_string();
        assert!(none.contains(places[0].to_str().unwrap()) && none.contains("lib/xlvs"), "{none}");
        for place in &places {
            fs::create_dir_all(place.parent().unwrap()).unwrap();
        }
        fs::write(&places[1], "").unwrap();
        assert_eq!(library(None, Some(&executable)).unwrap(), places[1]);
        fs::write(&places[0], "").unwrap();
        assert_eq!(library(None, Some(&executable)).unwrap(), places[0]);
        let named = library(Some(places[2].clone().into()), Some(&executable)).unwrap_err().to_string();
        assert!(named.contains("XLVS_PRELOAD names") && named.contains("other.so"), "{named}");
        fs::write(&places[2], "").unwrap();
        assert_eq!(library(Some(places[2].clone().into()), Some(&executable)).unwrap(), places[2]);
        let spaced = root.join("a b.so");
        fs::write(&spaced, "").unwrap();
        let refused = library(Some(spaced.into()), None).unwrap_err().to_string();
        assert!(refused.contains("a colon or a space"), "{refused}");
    }

    /// An ELF file with program headers of these types.
    fn elf(class: u8, machine: u16, types: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(&[
            0x7f,
            b'E',
            b'L',
            b'F',
            class,
            if cfg!(target_endian = "little") { 1 } else { 2 },
        ]);
        bytes[18..20].copy_from_slice(&machine.to_ne_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_ne_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_ne_bytes());
        bytes[56..58].copy_from_slice(&u16::try_from(types.len()).unwrap().to_ne_bytes());
        for kind in types {
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 52]);
        }
        bytes
    }

    #[test]
    fn static_and_foreign_programs_are_known() {
        let own = fs::read(env::current_exe().unwrap()).unwrap();
        let machine = u16_at(&own, 18).unwrap();
        let cut = elf(2, machine, &[6, 3])[..100].to_vec();
        for (what, head, expected) in [
            ("this program", own, Kind::Dynamic),
            ("with an interpreter", elf(2, machine, &[6, 3, 1]), Kind::Dynamic),
            ("without", elf(2, machine, &[1, 2, 1]), Kind::Static),
            ("no program headers", elf(2, machine, &[]), Kind::Static),
            ("cut short", cut, Kind::Static),
            ("32 bits", elf(1, machine, &[3]), Kind::Foreign),
            ("another machine", elf(2, machine ^ 1, &[3]), Kind::Foreign),
            ("a script", b"#! /bin/sh -e\necho".to_vec(), Kind::Script("/bin/sh".into())),
            ("text", b"echo".to_vec(), Kind::Unknown),
            ("nothing", Vec::new(), Kind::Unknown),
        ] {
            assert_eq!(kind(&head), expected, "{what}");
        }
    }
}
