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
//! Left out: machines shared between users or hosts, and telling apart machines of one name.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipu_sim::device::{AttachLocks, LockFailure, LockGuard, LockRefusal, NoLocks};
use ipu_sim::ids::IpuId;
use schemars::JsonSchema;
use serde::Serialize;

use crate::config::options::{ConnectionType, Device};

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

/// The folder that all processes of this user agree on, however they were started: variables
/// such as `TMPDIR` and `USER` differ between a login, `cron` and `su`.
fn shared_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os(FOLDER).filter(|value| !value.is_empty()) {
        return folder.into();
    }
    folder_of_user()
}

/// A folder of all users would belong to the first of them.
#[cfg(unix)]
fn folder_of_user() -> PathBuf {
    let user = rustix::process::getuid();
    PathBuf::from("/tmp").join(format!("ipu-bench-{user}"))
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
        if !self.folder.exists() {
            return Ok(holders);
        }
        let failed = |path: PathBuf| {
            move |source| crate::Error::File {
                action: "lock",
                path,
                source,
            }
        };
        let path = self.path("gate");
        let _gate = match self.gate() {
            Ok(gate) => gate,
            Err(TryLockError::WouldBlock) => return Err(crate::Error::LocksBusy { path }),
            Err(TryLockError::Error(error)) => return Err(failed(path)(error)),
        };
        for ipu in (0..n_ipus).map(IpuId) {
            let path = self.path(&ipu.0.to_string());
            let mut file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(path)(error)),
            };
            match file.try_lock_shared() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut text = Vec::new();
                    file.read_to_end(&mut text).map_err(failed(path))?;
                    holders.insert(ipu, Holder::read(&String::from_utf8_lossy(&text)));
                }
                Err(TryLockError::Error(error)) => return Err(failed(path)(error)),
            }
        }
        Ok(holders)
    }

    fn path(&self, what: &str) -> PathBuf {
        self.folder.join(format!("{}.{what}.lock", self.machine))
    }

    /// Waits until nobody else takes or looks at locks of this machine, but not for long.
    fn gate(&self) -> Result<File, TryLockError> {
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false);
        let file = file.open(self.path("gate")).map_err(TryLockError::Error)?;
        for _ in 1..GATE_TRIES {
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => std::thread::sleep(GATE_PAUSE),
                tried => return tried.map(|()| file),
            }
        }
        file.try_lock().map(|()| file)
    }

    /// The locked file of one IPU.
    fn lock(&self, ipu: IpuId) -> Result<File, LockRefusal> {
        let path = self.path(&ipu.0.to_string());
        let failed = |source| refused(&path, source);
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false);
        let mut file = file.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockRefusal::Busy { ipu }),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).map_err(failed)?;
        let name = Holder::this().write();
        file.write_all(name.as_bytes()).map_err(failed)?;
        Ok(file)
    }
}

/// A lock file, or the folder of all, that the system refuses.
#[derive(Debug, thiserror::Error)]
#[error("{}", path.display())]
struct Unusable {
    path: PathBuf,
    source: io::Error,
}

fn refused(path: &Path, source: io::Error) -> LockRefusal {
    let path = path.to_owned();
    LockRefusal::Failed(LockFailure::new(Unusable { path, source }))
}

impl AttachLocks for FileLocks {
    fn try_lock(&self, ipus: &[IpuId]) -> Result<LockGuard, LockRefusal> {
        let failed = |source| refused(&self.folder, source);
        fs::create_dir_all(&self.folder).map_err(failed)?;
        let _gate = match (self.gate(), ipus.first()) {
            (Ok(gate), _) => gate,
            // Whoever is in there so long is about to have some; who waits will ask again.
            (Err(TryLockError::WouldBlock), Some(&ipu)) => return Err(LockRefusal::Busy { ipu }),
            (Err(error), _) => return Err(failed(error.into())),
        };
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
        let refusal = locks.try_lock(&ipus(2..4)).err();
        assert_eq!(refusal, Some(LockRefusal::Busy { ipu: IpuId(2) }));
        let error = locks.holders(8).unwrap_err().to_string();
        assert!(error.contains("pod.gate.lock"), "{error}");
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
        let Err(LockRefusal::Failed(failure)) = locks.try_lock(&ipus(0..1)) else {
            panic!("expected a refusal");
        };
        assert_eq!(
            failure.to_string(),
            file.path().join("locks").to_string_lossy()
        );
        assert!(failure.source().is_some(), "with what the system says");
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
