//! The key that all directors of a group share, and its file. Who has it is one of them: the file must be readable by its owner only.
//!
//! The handshake lets who listens try out keys at home, so that only random ones are taken: no passwords.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rand::TryRngCore;
use rand::rngs::OsRng;

/// Of a key, in bytes.
const LENGTH: usize = 32;
const DIGITS: usize = 2 * LENGTH;
/// More than any file of a key has, in bytes: digits and the end of their line.
const MOST_BYTES: u64 = 128;

/// A key that is fit for use.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; LENGTH]);

impl fmt::Debug for Key {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Key(..)")
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file can't be opened or read.
    #[error(
        "{file}: the key of synchronisation can't be read ({cause}); `xlvs sync key {file}` makes one, of which all directors need a copy"
    )]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the kernel says.
        cause: io::Error,
    },
    /// A directory, a device or the like.
    #[error("{file}: found something else than a file; a file with the key of synchronisation is needed")]
    NotAFile {
        /// What was to be a file.
        file: PathBuf,
    },
    /// It belongs to somebody else.
    #[error(
        "{file}: belongs to the user {owner}; the key's owner must be root or the user that xlvs runs as ({user}): `chown {user} {file}`"
    )]
    Owner {
        /// The file.
        file: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// Others have rights.
    #[error(
        "{file}: its mode is {mode:04o}; nobody but the owner may have any right to the key: `chmod 600 {file}`, and make a new one if \
         somebody may have read it"
    )]
    Mode {
        /// The file.
        file: PathBuf,
        /// Its mode's last bits.
        mode: u32,
    },
    /// No key is in it.
    #[error(
        "{file}: found {found}; allowed are 64 hexadecimal digits or 32 random bytes, as `xlvs sync key {file}` writes them into a new file"
    )]
    Content {
        /// The file.
        file: PathBuf,
        /// What is in it.
        found: Found,
    },
    /// The file that is to be made is there.
    #[error(
        "{file}: is there already, and is not overwritten; take another name, or remove it if no director uses it"
    )]
    Exists {
        /// The file.
        file: PathBuf,
    },
    /// The file can't be made or written.
    #[error("{file}: the key can't be written: {cause}")]
    Unwritable {
        /// The file.
        file: PathBuf,
        /// What the kernel says.
        cause: io::Error,
    },
    /// The kernel gives no random numbers.
    #[error("the kernel gives no random numbers: {0}")]
    NotRandom(String),
}

/// What is in a file instead of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// So many bytes, which are no 64 digits.
    Bytes(usize),
    /// More than any key has.
    TooMuch,
    /// Characters that somebody may have thought of.
    Text,
    /// One byte again and again.
    Uniform,
}

impl fmt::Display for Found {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(0) => to.write_str("an empty file"),
            Self::Bytes(bytes) => write!(to, "{bytes} bytes that are no key"),
            Self::TooMuch => write!(to, "more than {MOST_BYTES} bytes"),
            Self::Text => to.write_str("text, which can be guessed"),
            Self::Uniform => to.write_str("the same byte again and again"),
        }
    }
}

impl Key {
    /// The key in a file.
    ///
    /// # Errors
    /// When there is none, or others than the owner (root, or who asks) have rights to it.
    pub fn read(file: &Path) -> Result<Self, KeyError> {
        let unreadable = |cause| KeyError::Unreadable { file: file.to_owned(), cause };
        // A pipe would be waited for otherwise.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(file).map_err(unreadable)?;
        let metadata = opened.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(KeyError::NotAFile { file: file.to_owned() });
        }
        check_rights(file, metadata.uid(), metadata.mode(), rustix::process::geteuid().as_raw())?;
        let mut content = Vec::new();
        opened.take(MOST_BYTES + 1).read_to_end(&mut content).map_err(unreadable)?;
        Self::parse(&content).map_err(|found| KeyError::Content { file: file.to_owned(), found })
    }

    /// Makes a new key in a new file, which only its owner may read.
    ///
    /// # Errors
    /// When there is such a file already, or it can't be made. Nothing is left of it then.
    pub fn create(file: &Path) -> Result<Self, KeyError> {
        let mut key = [0; LENGTH];
        OsRng.try_fill_bytes(&mut key).map_err(|error| KeyError::NotRandom(error.to_string()))?;
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
        let mut made = made.map_err(|cause| match cause.kind() {
            io::ErrorKind::AlreadyExists => KeyError::Exists { file: file.to_owned() },
            _ => KeyError::Unwritable { file: file.to_owned(), cause },
        })?;
        write(&mut made, &key).map_err(|cause| {
            let _ = std::fs::remove_file(file);
            KeyError::Unwritable { file: file.to_owned(), cause }
        })?;
        Ok(Self(key))
    }

    /// Of a file's bytes.
    fn parse(content: &[u8]) -> Result<Self, Found> {
        if content.len() as u64 > MOST_BYTES {
            return Err(Found::TooMuch);
        }
        let key = match <[u8; LENGTH]>::try_from(content) {
            Ok(raw) if raw.iter().all(u8::is_ascii) => return Err(Found::Text),
            Ok(raw) => raw,
            Err(_) => digits(content.trim_ascii()).ok_or(Found::Bytes(content.len()))?,
        };
        let is_uniform = key.iter().all(|&byte| byte == key[0]);
        if is_uniform { Err(Found::Uniform) } else { Ok(Self(key)) }
    }

    /// The bytes that the handshake takes, and the messages' key is made of.
    pub(crate) const fn bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }
}

#[cfg(test)]
impl From<[u8; LENGTH]> for Key {
    fn from(bytes: [u8; LENGTH]) -> Self {
        Self(bytes)
    }
}

fn check_rights(file: &Path, owner: u32, mode: u32, user: u32) -> Result<(), KeyError> {
    if owner != 0 && owner != user {
        return Err(KeyError::Owner { file: file.to_owned(), owner, user });
    }
    if mode & 0o077 != 0 {
        return Err(KeyError::Mode { file: file.to_owned(), mode: mode & 0o7777 });
    }
    Ok(())
}

fn write(file: &mut File, key: &[u8; LENGTH]) -> io::Result<()> {
    let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(file, "{digits}")?;
    file.sync_all()
}

/// The bytes that digits mean, if they are as many as a key has.
fn digits(text: &[u8]) -> Option<[u8; LENGTH]> {
    let text = <&[u8; DIGITS]>::try_from(text).ok()?;
    let mut key = [0; LENGTH];
    let (pairs, _) = text.as_chunks::<2>();
    for (byte, pair) in key.iter_mut().zip(pairs) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        *byte = (high? << 4 | low?) as u8;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn with(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        (directory, file)
    }

    fn error(content: &[u8], mode: u32) -> String {
        let (_directory, file) = with(content, mode);
        let error = Key::read(&file).unwrap_err().to_string();
        error.replace(&file.display().to_string(), "FILE")
    }

    fn raw() -> [u8; LENGTH] {
        std::array::from_fn(|index| 200 + index as u8)
    }

    #[test]
    fn a_new_key_is_its_owners_alone_and_reads_back() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        let made = Key::create(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::metadata(&file).unwrap().len(), DIGITS as u64 + 1);
        assert_eq!(Key::read(&file).unwrap(), made);
        assert_ne!(Key::create(&directory.path().join("other")).unwrap(), made);
    }

    #[test]
    fn a_file_that_is_there_is_not_overwritten() {
        let (_directory, file) = with(b"mine", 0o600);
        let told = Key::create(&file).unwrap_err().to_string();
        assert!(told.contains("is there already"), "{told}");
        assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    }

    #[test]
    fn a_key_in_a_directory_that_is_not_there_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("no").join("key");
        assert!(matches!(Key::create(&file), Err(KeyError::Unwritable { .. })));
        let told = Key::read(&file).unwrap_err().to_string();
        assert!(told.contains("xlvs sync key"), "{told}");
    }

    #[test]
    fn digits_in_either_case_and_bytes_are_the_same_key() {
        let lower: String = raw().iter().map(|byte| format!("{byte:02x}")).collect();
        for content in
            [raw().to_vec(), lower.clone().into_bytes(), format!("{}\r\n", lower.to_uppercase()).into()]
        {
            let (_directory, file) = with(&content, 0o400);
            assert_eq!(Key::read(&file).unwrap(), Key(raw()), "{content:?}");
        }
    }

    #[test]
    fn what_is_no_key_is_told() {
        let cases: [(&[u8], &str); 8] = [
            (b"", "an empty file"),
            (b"secret\n", "7 bytes that are no key"),
            (&[b'a'; 63], "63 bytes"),
            (&[b'g'; 64], "64 bytes"),
            (&[b'a'; 200], "more than 128 bytes"),
            (b"correct horse battery staple 123", "text, which can be guessed"),
            (&[b'0'; 64], "the same byte again and again"),
            (&[0xff; 32], "the same byte again and again"),
        ];
        for (content, found) in cases {
            let told = error(content, 0o600);
            assert!(
                told.contains(&format!("FILE: found {found}")) && told.contains("64 hexadecimal"),
                "{told}"
            );
        }
    }

    #[test]
    fn a_key_that_others_have_rights_to_is_refused() {
        for mode in [0o640, 0o604, 0o620, 0o601, 0o777] {
            let told = error(&raw(), mode);
            assert!(told.contains(&format!("mode is {mode:04o}")) && told.contains("chmod 600"), "{told}");
        }
    }

    #[test]
    fn only_root_and_who_asks_may_own_it() {
        let check = |owner, user| check_rights(Path::new("key"), owner, 0o100_600, user);
        for (owner, user) in [(0, 0), (0, 7), (7, 7)] {
            assert!(check(owner, user).is_ok(), "{owner} {user}");
        }
        for (owner, user) in [(7, 0), (7, 8)] {
            let told = check(owner, user).unwrap_err().to_string();
            assert!(
                told.contains(&format!("user {owner};")) && told.contains(&format!("`chown {user} key`")),
                "{told}"
            );
        }
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(Key::read(directory.path()), Err(KeyError::NotAFile { .. })));
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(matches!(Key::read(&pipe), Err(KeyError::NotAFile { .. })));
    }

    #[test]
    fn it_is_not_printed() {
        assert_eq!(format!("{:?}", Key(raw())), "Key(..)");
    }
}
