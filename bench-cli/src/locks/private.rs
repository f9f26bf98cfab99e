//! Files and folders that nobody else can have put there, or can change.
//!
//! Other people may make files in a folder for temporary files: a link to a file of ours, which we
//! would then empty, or a pipe, at which we would wait for ever. Outside Unix the folder for
//! temporary files is the user's own, and nothing is checked.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

/// Why a file or folder isn't used.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// What the system says.
    #[error(transparent)]
    System(#[from] io::Error),
    /// Something else than a folder, a link to one included.
    #[error("it is not a folder, or a link to one")]
    NotAFolder,
    /// Something else than a file, a link to one included.
    #[error("it is not a file, or a link to one")]
    NotAFile,
    /// Something that another user made.
    #[error("it belongs to user {owner}")]
    NotOurs {
        /// Number of that user.
        owner: u32,
    },
    /// A folder that others may write to.
    #[error("others may write to it")]
    WritableForOthers,
    /// A file that can be reached by another name.
    #[error("the file has another name elsewhere")]
    OtherName,
}

/// Makes sure that a folder is this user's, and that nobody else may write to it.
///
/// # Errors
///
/// Why it isn't so.
#[cfg(unix)]
pub(super) fn check_folder(path: &Path) -> Result<(), Unfit> {
    use std::os::unix::fs::MetadataExt;

    /// Bits of a mode that let the group or others write.
    const OTHERS_WRITE: u32 = 0o022;
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() {
        return Err(Unfit::NotAFolder);
    }
    check_owner(&found)?;
    match found.mode() & OTHERS_WRITE {
        0 => Ok(()),
        _ => Err(Unfit::WritableForOthers),
    }
}

/// Makes a folder that only this user may use, unless it is there, and checks it.
///
/// # Errors
///
/// As [`check_folder`]; a folder that can't be made.
#[cfg(unix)]
pub(super) fn make_folder(path: &Path) -> Result<(), Unfit> {
    use std::os::unix::fs::DirBuilderExt;

    /// Of the user alone.
    const MODE: u32 = 0o700;
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(MODE)
        .create(path);
    // Something else that is there is found out by the check.
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error.into()),
        _ => check_folder(path),
    }
}

/// Opens a file, and makes sure that it is one, this user's, and known by no other name: no link is
/// followed, and no pipe waited at.
///
/// # Errors
///
/// Why it isn't so.
#[cfg(unix)]
pub(super) fn open(path: &Path, options: &mut OpenOptions) -> Result<File, Unfit> {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

    use rustix::fs::OFlags;
    use rustix::io::Errno;

    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).expect("flags of the system are small");
    /// What opening a link says, and a pipe without a reader.
    const NOT_FILES: [Errno; 2] = [Errno::LOOP, Errno::NXIO];
    let opened = options.custom_flags(flags).open(path);
    let file = opened.map_err(|error| match Errno::from_io_error(&error) {
        Some(errno) if NOT_FILES.contains(&errno) => Unfit::NotAFile,
        _ => error.into(),
    })?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(Unfit::NotAFile);
    }
    check_owner(&found)?;
    // One that was removed since has none.
    match found.nlink() {
        0 | 1 => Ok(file),
        _ => Err(Unfit::OtherName),
    }
}

/// Whether the file at `path` is that open one: it may have been removed since.
#[cfg(unix)]
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;

    let opened = file.metadata()?;
    Ok(fs::symlink_metadata(path)
        .is_ok_and(|found| (found.dev(), found.ino()) == (opened.dev(), opened.ino())))
}

#[cfg(unix)]
fn check_owner(found: &fs::Metadata) -> Result<(), Unfit> {
    use std::os::unix::fs::MetadataExt;

    let owner = found.uid();
    match owner == rustix::process::geteuid().as_raw() {
        true => Ok(()),
        false => Err(Unfit::NotOurs { owner }),
    }
}

/// Makes sure that a folder is there.
///
/// # Errors
///
/// Why it isn't so.
#[cfg(not(unix))]
pub(super) fn check_folder(path: &Path) -> Result<(), Unfit> {
    match fs::metadata(path)?.is_dir() {
        true => Ok(()),
        false => Err(Unfit::NotAFolder),
    }
}

/// Makes a folder unless it is there.
///
/// # Errors
///
/// A folder that can't be made.
#[cfg(not(unix))]
pub(super) fn make_folder(path: &Path) -> Result<(), Unfit> {
    Ok(fs::create_dir_all(path)?)
}

/// Opens a file.
///
/// # Errors
///
/// A file that can't be opened.
#[cfg(not(unix))]
pub(super) fn open(path: &Path, options: &mut OpenOptions) -> Result<File, Unfit> {
    Ok(options.open(path)?)
}

/// Whether the file at `path` is that open one, which nobody can remove here.
#[cfg(not(unix))]
pub(super) fn is_at(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}
