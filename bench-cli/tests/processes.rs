//! Processes that share a machine, some of which die.
//!
//! The others are this test's own binary, asked by the environment to play [`holder`].
#![cfg(test)]

use std::env;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bench_cli::clock::HostClock;
use bench_cli::locks::FileLocks;
use ipu_sim::device::DeviceError;
use ipu_sim::device::{
    AttachLocks, Connection, Device, DeviceId, DeviceManager, Executable, LockGuard, LockRefusal,
    Mode, Ports,
};
use ipu_sim::engine;
use ipu_sim::execute::FloatControl;
use ipu_sim::ids::{IpuId, ReplicaId};
use ipu_sim::layout::{AxisSplit, Layout};
use ipu_sim::numerics::DType;
use ipu_sim::program::{ComputeSet, Operand, Program, Step, VarKind, Variable, VertexGroup};
use ipu_sim::spec::MachineSpec;
use ipu_sim::vertex::{MapOp, UnaryFn, Vertex};

/// The folder of the locks and the device that a [`holder`] wants.
const FOLDER: &str = "IPU_BENCH_TEST_FOLDER";
const DEVICE: &str = "IPU_BENCH_TEST_DEVICE";

const MACHINE: &str = "mk2-m2000";

/// The machine that all of them share: devices 0 to 3 are IPUs, 4 and 5 are pairs, 6 is all.
fn manager(folder: &Path) -> DeviceManager {
    manager_with(Arc::new(FileLocks::new(folder.join("ipu-bench"), MACHINE)))
}

fn manager_with(locks: Arc<dyn AttachLocks>) -> DeviceManager {
    let ports = Ports {
        locks,
        clock: Arc::new(HostClock::start()),
        ..Ports::alone()
    };
    DeviceManager::new(MachineSpec::shipped(MACHINE).unwrap(), ports)
}

/// Squares 3 on the first IPU of each replica.
fn square(n_replicas: u32) -> Executable {
    let mut program = Program::new(1, n_replicas);
    let layout = program.add_layout(Layout::row_major(vec![AxisSplit::whole(1)]));
    let x = program.vars.push(Variable {
        name: "x".into(),
        dtype: DType::F32,
        ipu: IpuId(0),
        layout,
        kind: VarKind::Weight,
    });
    let source = program.add_source("x", "square");
    program.steps = vec![Step::Compute(ComputeSet {
        source,
        ipu: IpuId(0),
        vertices: vec![VertexGroup {
            vertex: Vertex::Map(MapOp::Unary(UnaryFn::Square)),
            output: Operand::new(x, &[0]),
            inputs: [Operand::new(x, &[0])].into_iter().collect(),
        }],
    })];
    Executable {
        name: "square".into(),
        program: Arc::new(program),
        timing: engine::Options {
            mode: engine::Mode::Folded,
            trace_depth: 0,
        },
        float_control: FloatControl::default(),
        host_sync_timeout: None,
    }
}

/// Plays another process where the environment asks for it: tries to attach when it gets a line,
/// runs, says what came of it, and keeps what it has until its stdin ends.
#[test]
fn holder() {
    let (Ok(folder), Ok(device)) = (env::var(FOLDER), env::var(DEVICE)) else {
        return;
    };
    let manager = manager(Path::new(&folder));
    let id = DeviceId(device.parse().unwrap());
    let mut stdin = io::stdin().lock();
    let mut line = String::new();
    stdin.read_line(&mut line).unwrap();
    let (said, held) = match manager.attach(id, Connection::Always) {
        Err(error) => (error.to_string(), None),
        Ok(attached) => {
            let executable = square(attached.device().n_ipus);
            let mut loaded = attached.load(executable).unwrap();
            let replicas = (0..loaded.attached().device().n_ipus).map(ReplicaId);
            let x = loaded.variable("x").unwrap();
            for replica in replicas.clone() {
                loaded.write(replica, x, &[3.0]).unwrap();
            }
            loaded.run(Mode::TimeAndExecute).unwrap();
            let mut said = "attached".to_owned();
            for replica in replicas {
                write!(said, " {}", loaded.read(replica, x).unwrap()[0]).unwrap();
            }
            (said, Some(loaded))
        }
    };
    // The first line belongs to the test harness, which doesn't end it.
    writeln!(io::stdout(), "\nholder: {said}").unwrap();
    io::stdout().flush().unwrap();
    stdin.read_line(&mut line).unwrap();
    drop(held);
}

/// A process that plays [`holder`]. It is killed when this is dropped.
struct Holder {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Holder {
    fn start(folder: &Path, device: u32) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "holder", "--nocapture"])
            .env(FOLDER, folder)
            .env(DEVICE, device.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// Lets it try to attach.
    fn go(&mut self) {
        self.child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"go\n")
            .unwrap();
    }

    /// What came of it.
    fn said(&mut self) -> String {
        loop {
            let mut line = String::new();
            let read = self.stdout.read_line(&mut line).unwrap();
            assert!(read > 0, "the process ended without a word");
            if let Some(said) = line.trim_end().strip_prefix("holder: ") {
                return said.to_owned();
            }
        }
    }

    fn attached(folder: &Path, device: u32) -> Self {
        let mut holder = Self::start(folder, device);
        holder.go();
        let said = holder.said();
        assert!(said.starts_with("attached"), "{said}");
        holder
    }

    /// SIGKILL: it has no chance to release anything.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.kill();
    }
}

fn busy_ipu(outcome: Result<impl Sized, DeviceError>) -> Option<IpuId> {
    match outcome {
        Ok(_) => None,
        Err(DeviceError::DeviceBusy { ipu, .. }) => Some(ipu),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_process_that_is_killed_leaves_its_ipus_free() {
    let folder = tempfile::tempdir().unwrap();
    let mut holder = Holder::attached(folder.path(), 5);
    let manager = manager(folder.path());
    for (device, expected) in [
        (2, Some(2)),
        (3, Some(3)),
        (5, Some(2)),
        (6, Some(2)),
        (4, None),
    ] {
        let outcome = manager.attach(DeviceId(device), Connection::Always);
        assert_eq!(busy_ipu(outcome), expected.map(IpuId), "device {device}");
    }
    holder.kill();
    // Device 4 was let go just now, but a process that another test starts has copies of open locks
    // until it runs its own program.
    let timeout = Duration::from_secs(60);
    let attached = manager.attach(DeviceId(6), Connection::OnDemand { timeout });
    attached.unwrap();
}

/// Locks that tell of every refusal.
struct TellingLocks {
    locks: FileLocks,
    refusals: mpsc::Sender<()>,
}

impl AttachLocks for TellingLocks {
    fn try_lock(&self, ipus: &[IpuId]) -> Result<LockGuard, LockRefusal> {
        let tried = self.locks.try_lock(ipus);
        if tried.is_err() {
            // Nobody listens any more once the first has been heard.
            let _ = self.refusals.send(());
        }
        tried
    }
}

#[test]
fn whoever_waits_for_a_device_gets_it_when_its_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut holder = Holder::attached(folder.path(), 1);
    let (refusals, refused) = mpsc::channel();
    let locks = TellingLocks {
        locks: FileLocks::new(folder.path().join("ipu-bench"), MACHINE),
        refusals,
    };
    let manager = manager_with(Arc::new(locks));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let timeout = Duration::from_secs(60);
            manager.attach(DeviceId(4), Connection::OnDemand { timeout })
        });
        // Only when the other has been refused once does it wait.
        refused.recv().unwrap();
        holder.kill();
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn processes_on_disjoint_groups_run_at_the_same_time() {
    let folder = tempfile::tempdir().unwrap();
    // A pair and two single IPUs.
    let devices = [4, 2, 3];
    let mut holders = devices.map(|device| Holder::start(folder.path(), device));
    for holder in &mut holders {
        holder.go();
    }
    let said: Vec<String> = holders.iter_mut().map(Holder::said).collect();
    assert_eq!(said, ["attached 9 9", "attached 9", "attached 9"]);
    let outcome = manager(folder.path()).attach(DeviceId(6), Connection::Always);
    assert_eq!(busy_ipu(outcome), Some(IpuId(0)));
}

#[test]
fn of_processes_that_want_overlapping_groups_none_is_left_with_half() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = [6, 4, 5, 6, 4, 5];
    let mut holders = wanted.map(|device| Holder::start(folder.path(), device));
    for holder in &mut holders {
        holder.go();
    }
    let said: Vec<String> = holders.iter_mut().map(Holder::said).collect();
    let manager = manager(folder.path());
    let devices = manager.enumerate();
    let winners: Vec<Device> = wanted
        .iter()
        .zip(&said)
        .filter(|(_, said)| said.starts_with("attached"))
        .map(|(&device, _)| devices[device as usize])
        .collect();
    let mut held: Vec<IpuId> = winners.iter().flat_map(Device::ipus).collect();
    held.sort();
    // Nobody was refused for nothing: all IPUs have been given away, each once.
    assert_eq!(held, [0, 1, 2, 3].map(IpuId), "{said:?}");
}

#[test]
fn the_list_of_devices_says_who_is_attached() {
    let folder = tempfile::tempdir().unwrap();
    let list = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ipu-bench"))
            .arg("devices")
            .args(words)
            .env("IPU_BENCH_LOCKS", folder.path().join("ipu-bench"))
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let free = list(&[]);
    assert!(!free.contains("attached: [processes"), "{free}");
    let mut holder = Holder::attached(folder.path(), 5);
    let process = holder.child.id();
    let listed = list(&[]);
    let by = |line: &str| {
        listed.lines().any(|found| {
            found.starts_with(line) && {
                found.contains("attached: [processes-") && found.ends_with(&format!(" {process}]"))
            }
        })
    };
    for (device, attached) in [
        (0, false),
        (2, true),
        (3, true),
        (4, false),
        (5, true),
        (6, true),
    ] {
        assert_eq!(by(&format!("-+- Id: [{device}]")), attached, "{listed}");
    }
    let one = list(&["2"]);
    assert!(
        one.contains(&format!("user process id: {process}\n")),
        "{one}"
    );
    let json: serde_json::Value = serde_json::from_str(&list(&["--json"])).unwrap();
    assert_eq!(json["devices"][6]["attached_by"][0]["process"], process);
    assert_eq!(json["ipus"][0]["attached_by"], serde_json::Value::Null);
    holder.kill();
    assert_eq!(list(&[]), free);
}
