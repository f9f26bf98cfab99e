//! Who else is attached to the IPUs of a machine?
//!
//! Simulated devices are not scarce: by default every process has a machine of its own
//! ([`ipu_sim::device::NoLocks`]), so that runs side by side never wait for one another. A run
//! that asks for a device the way one shares hardware, by `--device-id` or by
//! `--device-connection-type ondemand`, shares one machine of each name with all such runs of the
//! same user: a device is then attached by one of them at a time. [`choose`] is that rule.
//!
//! What is shared is a folder with one lock file for each machine name and IPU. The files stay;
//! the locks on them end with the process that holds them, however it ends. Who locks a file
//! writes its name there ([`Holder`]). One more file for each machine is locked only while
//! somebody takes or looks at the others: so that of two who want overlapping groups one gets all
//! it wants, and nobody is refused because of somebody who only looks. Both take moments; a
//! process that was stopped meanwhile keeps others waiting for half a second only.
//!
//! Other people may write where the folder is. It is used only if it is this user's and nobody
//! else may write there, and its files only if they are files, this user's, and under no other
//! name (`locks/private.rs`).
//!
//! Left out: machines shared between users or hosts, and telling apart machines of one name. A run
//! from before the user's first login, where the system then makes a folder for the user
//! (`/run/user`), doesn't see those from after it.

mod private;

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipu_sim::device::{AttachLocks, LockFailure, LockGuard, LockRefusal, NoLocks};
use ipu_sim::ids::IpuId;
use schemars::JsonSchema;
use serde::Serialize;

use crate::config::options::{ConnectionType, Device};
use private::Unfit;

/// Where locks are, if not where [`shared_folder`] says.
const FOLDER: &str = "IPU_BENCH_LOCKS";

/// How often to try for the gate, half a second in all: whoever is inside stays for milliseconds.
const GATE_TRIES: u32 = 100;
const GATE_PAUSE: Duration = Duration::from_millis(5);

/// The locks for a run on a device of the machine of this name, as the module says.
///
/// An offline run takes no device, whichever it names.
#[must_use]
pub fn choose(device: &Device, machine: &str) -> Arc<dyn AttachLocks> {
    let shares = match device.connection {
        ConnectionType::Always => device.id.is_some(),
        ConnectionType::OnDemand => true,
        ConnectionType::Offline => false,
    };
    if shares {
        Arc::new(FileLocks::shared(machine))
    } else {
        Arc::new(NoLocks)
    }
}

/// Bytes of the name of a holder at the most.
const NAME_BYTES_MAX: u64 = 4096;

/// The folder that all processes of this user agree on, however they were started: variables
/// such as `TMPDIR`, `USER` and `XDG_RUNTIME_DIR` differ between a login, `cron` and `su`.
fn shared_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os(FOLDER).filter(|value| !value.is_empty()) {
        return folder.into();
    }
    folder_of_user()
}

/// A folder of all users would belong to the first of them.
#[cfg(unix)]
fn folder_of_user() -> PathBuf {
    let user = rustix::process::geteuid();
    let runtime = PathBuf::from(format!("/run/user/{user}"));
    match private::check_folder(&runtime) {
        Ok(()) => runtime.join("ipu-bench"),
        Err(_) => PathBuf::from("/tmp").join(format!("ipu-bench-{user}")),
    }
}

/// The folder for temporary files is the user's own.
#[cfg(not(unix))]
fn folder_of_user() -> PathBuf {
    std::env::temp_dir().join("ipu-bench")
}

/// `text` with `_` for everything that has a meaning in paths.
fn file_name(text: &str) -> String {
    let keep = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    text.chars()
        .map(|letter| if keep(letter) { letter } else { '_' })
        .collect()
}

/// One lock file for each IPU of a machine.
#[derive(Clone, Debug)]
pub struct FileLocks {
    folder: PathBuf,
    machine: String,
}

impl FileLocks {
    /// Locks in `folder`, which is created when it is needed, on the machine of this name.
    #[must_use]
    pub fn new(folder: PathBuf, machine: &str) -> Self {
        Self {
            folder,
            machine: file_name(machine),
        }
    }

    /// The locks that all processes of this user agree on.
    #[must_use]
    pub fn shared(machine: &str) -> Self {
        Self::new(shared_folder(), machine)
    }

    /// Holders of the first `n_ipus` IPUs, those that are free left out.
    ///
    /// # Errors
    ///
    /// A file that can't be read or locked.
    pub fn holders(&self, n_ipus: u32) -> crate::Result<BTreeMap<IpuId, Holder>> {
        let mut holders = BTreeMap::new();
        let folder = private::check_folder(&self.folder);
        match folder {
            Err(Unfit::System(error)) if error.kind() == ErrorKind::NotFound => return Ok(holders),
            checked => checked.map_err(|reason| unusable(&self.folder, reason))?,
        }
        let failed = |path: PathBuf| move |source| LockError::System { path, source };
        let _gate = self.gate()?;
        for ipu in (0..n_ipus).map(IpuId) {
            let path = self.path(&ipu.0.to_string());
            let file = match private::open(&path, File::options().read(true)) {
                Err(Unfit::System(error)) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened.map_err(|reason| unusable(&path, reason))?,
            };
            match file.try_lock_shared() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut text = Vec::new();
                    let read = file.take(NAME_BYTES_MAX).read_to_end(&mut text);
                    read.map_err(failed(path))?;
                    holders.insert(ipu, Holder::read(&String::from_utf8_lossy(&text)));
                }
                Err(TryLockError::Error(error)) => return Err(failed(path)(error).into()),
            }
        }
        Ok(holders)
    }

    fn path(&self, what: &str) -> PathBuf {
        self.folder.join(format!("{}.{what}.lock", self.machine))
    }

    /// Waits until nobody else takes or looks at locks of this machine, but not for long.
    fn gate(&self) -> Result<File, LockError> {
        let path = self.path("gate");
        for _ in 0..GATE_TRIES {
            match self.try_lock_file(&path)? {
                Some(file) => return Ok(file),
                None => std::thread::sleep(GATE_PAUSE),
            }
        }
        Err(LockError::Gate { path })
    }

    /// A file, made if it isn't there, locked; none if somebody else has locked it.
    fn try_lock_file(&self, path: &Path) -> Result<Option<File>, LockError> {
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(false);
        let system = |source| LockError::System {
            path: path.to_owned(),
            source,
        };
        loop {
            let file = private::open(path, options).map_err(|reason| unusable(path, reason))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(system(error)),
            }
            // Whoever tidies up the folder may have removed it meanwhile.
            if private::is_at(&file, path).map_err(system)? {
                return Ok(Some(file));
            }
        }
    }

    /// The locked file of one IPU.
    fn lock(&self, ipu: IpuId) -> Result<File, LockRefusal> {
        let path = self.path(&ipu.0.to_string());
        let locked = self.try_lock_file(&path).map_err(refused)?;
        let mut file = locked.ok_or(LockRefusal::Busy { ipu })?;
        let name = Holder::this().write();
        let written = file
            .set_len(0)
            .and_then(|()| file.write_all(name.as_bytes()));
        written.map_err(|source| refused(LockError::System { path, source }))?;
        Ok(file)
    }
}

/// Why locks can't be taken or looked at.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A file, or the folder of all, that the system refuses.
    #[error("cannot lock {}", path.display())]
    System {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file or folder that somebody else may have put there.
    #[error(
        "cannot lock {}: {reason}; remove it, or name a folder of your own in {FOLDER}",
        path.display()
    )]
    Unfit {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: Unfit,
    },
    /// A gate that somebody holds for longer than taking locks takes.
    #[error(
        "cannot lock {}: another process has held it for half a second; is one stopped there?",
        path.display()
    )]
    Gate {
        /// The file that is locked meanwhile.
        path: PathBuf,
    },
}

fn unusable(path: &Path, reason: Unfit) -> LockError {
    let path = path.to_owned();
    match reason {
        Unfit::System(source) => LockError::System { path, source },
        reason => LockError::Unfit { path, reason },
    }
}

fn refused(error: LockError) -> LockRefusal {
    LockRefusal::Failed(LockFailure::new(error))
}

impl AttachLocks for FileLocks {
    fn try_lock(&self, ipus: &[IpuId]) -> Result<LockGuard, LockRefusal> {
        let made = private::make_folder(&self.folder);
        made.map_err(|reason| refused(unusable(&self.folder, reason)))?;
        let _gate = self.gate().map_err(refused)?;
        // A refusal drops, and so unlocks, the files before it.
        let files: Vec<File> = ipus
            .iter()
            .map(|&ipu| self.lock(ipu))
            .collect::<Result<_, _>>()?;
        Ok(Box::new(files))
    }
}

/// A process that is attached to an IPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Holder {
    /// Id of the process; none if it hasn't said.
    pub process: Option<u32>,
    /// The file name of what it runs.
    pub executable: String,
}

impl Holder {
    /// This process.
    fn this() -> Self {
        let path = std::env::args_os().next().map(PathBuf::from);
        let name = path.as_ref().and_then(|path| path.file_name());
        Self {
            process: Some(std::process::id()),
            executable: name.unwrap_or_default().to_string_lossy().into_owned(),
        }
    }

    fn write(&self) -> String {
        let process = self.process.unwrap_or_default();
        format!("{process} {}\n", self.executable)
    }

    fn read(text: &str) -> Self {
        let (process, executable) = text.trim_end().split_once(' ').unwrap_or((text, ""));
        Self {
            process: process.parse().ok(),
            executable: executable.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::fs;
    use std::time::Duration;

    use super::*;

    fn ipus(range: std::ops::Range<u32>) -> Vec<IpuId> {
        range.map(IpuId).collect()
    }

    #[test]
    fn an_ipu_has_one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let locks = |machine: &str| FileLocks::new(folder.path().join("new"), machine);
        let (mine, theirs, other) = (locks("pod"), locks("pod"), locks("other/pod"));
        let guard = mine.try_lock(&ipus(2..4)).unwrap();
        for (held, range) in [(Some(2), 0..4), (Some(3), 3..4), (None, 0..2), (None, 4..6)] {
            let refusal = theirs.try_lock(&ipus(range)).err();
            let expected = held.map(|ipu| LockRefusal::Busy { ipu: IpuId(ipu) });
            assert_eq!(refusal, expected);
        }
        assert!(other.try_lock(&ipus(0..4)).is_ok());
        let holders = theirs.holders(8).unwrap();
        let this = Holder::this();
        assert_eq!(this.process, Some(std::process::id()));
        let expected = [(IpuId(2), this.clone()), (IpuId(3), this)];
        assert_eq!(holders, BTreeMap::from(expected));
        drop(guard);
        // The files still name who had them, but nobody locks them.
        assert!(theirs.holders(8).unwrap().is_empty());
        assert!(theirs.try_lock(&ipus(0..4)).is_ok());
    }

    /// A process that was stopped while it took locks.
    #[test]
    fn a_gate_that_stays_shut_is_waited_for_in_vain() {
        let folder = tempfile::tempdir().unwrap();
        let locks = FileLocks::new(folder.path().to_owned(), "pod");
        let gate = locks.gate().unwrap();
        let expected = "pod.gate.lock: another process has held it for half a second";
        let refusal = refusal(&locks);
        assert!(refusal.contains(expected), "{refusal}");
        let error = locks.holders(8).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        drop(gate);
        assert!(locks.try_lock(&ipus(2..4)).is_ok());
    }

    #[test]
    fn a_holder_may_have_written_anything() {
        let folder = tempfile::tempdir().unwrap();
        let locks = FileLocks::new(folder.path().to_owned(), "pod");
        let guard = locks.try_lock(&ipus(1..2)).unwrap();
        fs::write(folder.path().join("pod.1.lock"), [0xff, 0xfe, b' ', b'x']).unwrap();
        let holders = locks.holders(4).unwrap();
        assert_eq!(holders[&IpuId(1)].process, None);
        drop(guard);
    }

    #[test]
    fn a_folder_that_cannot_be_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let locks = FileLocks::new(file.path().join("locks"), "pod");
        let refusal = refusal(&locks);
        let folder = file.path().join("locks");
        let wanted = format!("cannot lock {}: ", folder.display());
        assert!(refusal.starts_with(&wanted), "{refusal}");
    }

    /// Why a lock on two IPUs is refused, with what the system says.
    fn refusal(locks: &FileLocks) -> String {
        let Err(LockRefusal::Failed(failure)) = locks.try_lock(&ipus(0..2)) else {
            panic!("expected a refusal");
        };
        match failure.source() {
            Some(source) => format!("{failure}: {source}"),
            None => failure.to_string(),
        }
    }

    /// What other people can put where they may write: nothing of ours is changed, nothing waited
    /// for, and the file or folder is named.
    #[test]
    #[cfg(unix)]
    fn what_others_put_there_is_refused() {
        use std::fs::Permissions;
        use std::os::unix::fs::{PermissionsExt, symlink};

        const FILES: [&str; 2] = ["pod.gate.lock", "pod.0.lock"];
        let check = |name: &str, put: &dyn Fn(&Path, &Path), expected: &str| {
            let folder = tempfile::tempdir().unwrap();
            let private = folder.path().join("private");
            fs::write(&private, "mine").unwrap();
            let locks = folder.path().join("locks");
            let place = match name {
                "" => locks.clone(),
                name => {
                    fs::create_dir(&locks).unwrap();
                    locks.join(name)
                }
            };
            put(&place, &private);
            let locks = FileLocks::new(locks, "pod");
            let refused = refusal(&locks);
            let wanted = format!("cannot lock {}: {expected}; remove it", place.display());
            assert!(refused.starts_with(&wanted), "{refused}");
            let seen = locks.holders(2).unwrap_err().to_string();
            assert!(seen.starts_with(&wanted), "{seen}");
            assert_eq!(fs::read_to_string(&private).unwrap(), "mine");
        };
        for file in FILES {
            let not_a_file = "it is not a file, or a link to one";
            check(
                file,
                &|place, private| symlink(private, place).unwrap(),
                not_a_file,
            );
            check(file, &|place, _| make_pipe(place), not_a_file);
            let linked = "the file has another name elsewhere";
            check(
                file,
                &|place, private| fs::hard_link(private, place).unwrap(),
                linked,
            );
        }
        let to_a_folder = |place: &Path, private: &Path| {
            let theirs = private.with_file_name("theirs");
            fs::create_dir(&theirs).unwrap();
            symlink(theirs, place).unwrap();
        };
        check("", &to_a_folder, "it is not a folder, or a link to one");
        let open_to_all = |place: &Path, _: &Path| {
            fs::create_dir(place).unwrap();
            fs::set_permissions(place, Permissions::from_mode(0o777)).unwrap();
        };
        check("", &open_to_all, "others may write to it");
    }

    #[cfg(unix)]
    fn make_pipe(place: &Path) {
        let made = std::process::Command::new("mkfifo").arg(place).status();
        assert!(made.unwrap().success());
    }

    /// Another user who makes the folder before us. Only root can be another user here.
    #[test]
    #[cfg(unix)]
    fn a_folder_of_another_user_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        use std::os::unix::process::CommandExt;

        const NOBODY: u32 = 65_534;
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        let theirs = folder.path().join("theirs");
        let mut command = std::process::Command::new("mkdir");
        let made = command.arg(&theirs).uid(NOBODY).status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("skipped: this user can't be another one");
            return;
        }
        let refused = refusal(&FileLocks::new(theirs, "pod"));
        assert!(refused.contains("it belongs to user 65534"), "{refused}");
    }

    /// A service that tidies up takes a file away while it is held: its place is taken anew.
    #[test]
    #[cfg(unix)]
    fn a_folder_that_was_removed_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let locks = FileLocks::new(folder.path().join("new"), "pod");
        let guard = locks.try_lock(&ipus(0..2)).unwrap();
        fs::remove_dir_all(folder.path().join("new")).unwrap();
        assert!(locks.holders(2).unwrap().is_empty());
        let _again = locks.try_lock(&ipus(0..2)).unwrap();
        assert_eq!(locks.holders(2).unwrap().len(), 2);
        drop(guard);
        assert_eq!(locks.holders(2).unwrap().len(), 2);
    }

    #[test]
    fn only_who_asks_for_a_device_shares_it() {
        for (id, connection, shares) in [
            (None, ConnectionType::Always, false),
            (Some(0), ConnectionType::Always, true),
            (None, ConnectionType::OnDemand, true),
            (Some(0), ConnectionType::Offline, false),
        ] {
            let device = Device {
                version: None,
                tiles: None,
                id,
                connection,
                ondemand_timeout: Duration::ZERO,
            };
            let machine = format!("test-{}", std::process::id());
            let [one, two] = [(); 2].map(|()| choose(&device, &machine));
            let guard = one.try_lock(&ipus(0..1)).unwrap();
            assert_eq!(two.try_lock(&ipus(0..1)).is_err(), shares, "{device:?}");
            drop(guard);
            let file = shared_folder().join(format!("{machine}.0.lock"));
            assert_eq!(fs::remove_file(file).is_ok(), shares);
        }
    }
}
