//! The device's side: a thread that owns the simulated memory and does what it is asked.
//!
//! A [`DeviceThread`] lives from attach to detach. Each [`Load`] brings a channel of
//! [`Request`]s and lasts until the host drops its end of it. Answers, and the calls of host
//! streams during a run, go back through channels that the requests bring along, so a thread
//! that panics breaks them: the host then gets [`DeviceError::DeviceFailed`] instead of waiting.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use super::error::{DeviceError, Result};
use super::executable::Executable;
use super::inventory::{Device, DeviceId};
use super::memory::{DeviceMemory, ValueAddress};
use super::ports::Ports;
use super::sync::{Builder, JoinHandle, Mutex, Receiver, Sender, channel};
use super::{Counters, Mode};
use crate::engine::{self, Timeline};
use crate::execute::{self, Host, StreamError};
use crate::ids::{IpuId, ReplicaId};
use crate::program::StreamId;
use crate::spec::MachineSpec;

/// An executable and the channel of what to do with it.
pub(super) struct Load {
    pub(super) executable: Executable,
    pub(super) machine: Arc<MachineSpec>,
    pub(super) device: Device,
    pub(super) ports: Ports,
    pub(super) requests: Receiver<Request>,
}

/// What a loaded device is asked for.
pub(super) enum Request {
    /// Runs the program; tells what happens, at last [`Event::Done`].
    Run { mode: Mode, events: Sender<Event> },
    /// Reads a variable.
    Read {
        place: ValueAddress,
        answer: Sender<Result<Vec<f64>>>,
    },
    /// Writes a variable.
    Write {
        place: ValueAddress,
        values: Vec<f64>,
        answer: Sender<Result<()>>,
    },
    /// Reads the counters.
    Counters { answer: Sender<Counters> },
    /// Forgets all values and counts.
    Reset { answer: Sender<()> },
}

/// What the host hears of a run.
pub(super) enum Event {
    /// A stream wants its next element.
    StreamRead {
        replica: ReplicaId,
        stream: StreamId,
        answer: Sender<std::result::Result<Vec<f64>, StreamError>>,
    },
    /// A stream has its next element.
    StreamWrite {
        replica: ReplicaId,
        stream: StreamId,
        values: Vec<f64>,
        answer: Sender<std::result::Result<(), StreamError>>,
    },
    /// The run is over.
    Done(Result<Arc<Timeline>>),
}

/// The host's handle of the thread, which ends when this is dropped.
pub(super) struct DeviceThread {
    device: DeviceId,
    state: Mutex<State>,
}

enum State {
    Running {
        loads: Sender<Load>,
        thread: JoinHandle<()>,
    },
    /// With the words of its panic.
    Stopped(String),
}

impl DeviceThread {
    /// Starts the thread of a device.
    pub(super) fn start(device: DeviceId) -> Result<Self> {
        let (loads, to_load) = channel::<Load>();
        let thread = Builder::new()
            .name(device.to_string())
            .spawn(move || to_load.iter().for_each(|load| serve(&load)))
            .map_err(|error| DeviceError::NoDeviceThread {
                device,
                kind: error.kind(),
            })?;
        let state = Mutex::new(State::Running { loads, thread });
        Ok(Self { device, state })
    }

    /// Loads an executable; what was loaded before must be unloaded already.
    pub(super) fn load(&self, load: Load) -> Result<()> {
        let sent = match &*self.state.lock() {
            State::Running { loads, .. } => loads.send(load).is_ok(),
            State::Stopped(_) => false,
        };
        sent.then_some(()).ok_or_else(|| self.failure())
    }

    /// Sends a request and waits for its answer.
    pub(super) fn ask<T>(
        &self,
        requests: &Sender<Request>,
        request: impl FnOnce(Sender<T>) -> Request,
    ) -> Result<T> {
        let (answer, answered) = channel();
        self.send(requests, request(answer))?;
        answered.recv().map_err(|_| self.failure())
    }

    /// Runs the program; `host` serves the streams on the caller's thread.
    pub(super) fn run(
        &self,
        requests: &Sender<Request>,
        mode: Mode,
        host: &mut dyn Host,
    ) -> Result<Arc<Timeline>> {
        let (events, happened) = channel();
        self.send(requests, Request::Run { mode, events })?;
        loop {
            // Where an answer finds nobody, the next event won't come either.
            match happened.recv().map_err(|_| self.failure())? {
                Event::StreamRead {
                    replica,
                    stream,
                    answer,
                } => drop(answer.send(host.read(replica, stream))),
                Event::StreamWrite {
                    replica,
                    stream,
                    values,
                    answer,
                } => drop(answer.send(host.write(replica, stream, values))),
                Event::Done(outcome) => return outcome,
            }
        }
    }

    fn send(&self, requests: &Sender<Request>, request: Request) -> Result<()> {
        requests.send(request).map_err(|_| self.failure())
    }

    /// Why a channel of the thread is broken: only a panic can be the reason.
    fn failure(&self) -> DeviceError {
        let mut state = self.state.lock();
        let stopped = State::Stopped(String::new());
        let panic = match std::mem::replace(&mut *state, stopped) {
            State::Running { loads, thread } => {
                drop(loads);
                match thread.join() {
                    Ok(()) => unreachable!("the thread ends before its channels"),
                    Err(panic) => panic_message(panic.as_ref()),
                }
            }
            State::Stopped(panic) => panic,
        };
        *state = State::Stopped(panic.clone());
        DeviceError::DeviceFailed {
            device: self.device,
            panic,
        }
    }
}

impl Drop for DeviceThread {
    fn drop(&mut self) {
        let stopped = State::Stopped(String::new());
        if let State::Running { loads, thread } = std::mem::replace(self.state.get_mut(), stopped) {
            drop(loads);
            // A panic that nobody has heard of by now concerns nobody any more.
            drop(thread.join());
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let fixed = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let formatted = || panic.downcast_ref::<String>().cloned();
    fixed.or_else(formatted).unwrap_or_default()
}

/// Serves the requests of one load until the host drops its end.
fn serve(load: &Load) {
    let mut run = Run {
        load,
        timeline: None,
    };
    let program = &load.executable.program;
    let mut memory = DeviceMemory::new(program, load.executable.float_control);
    let mut counters = Counters::default();
    // An answer that nobody waits for any more is of no use to anybody.
    for request in &load.requests {
        match request {
            Request::Run { mode, events } => {
                let mut host = FarHost::new(load, &events);
                let outcome = run.once(mode, &mut memory, &mut host);
                if let Ok(timeline) = &outcome {
                    counters.count(timeline.device_cycles());
                }
                drop(events.send(Event::Done(outcome)));
            }
            Request::Read { place, answer } => drop(answer.send(memory.read(place))),
            Request::Write {
                place,
                values,
                answer,
            } => drop(answer.send(memory.write(place, &values))),
            Request::Counters { answer } => drop(answer.send(counters)),
            Request::Reset { answer } => {
                memory = DeviceMemory::new(program, load.executable.float_control);
                counters = Counters::default();
                let _ = answer.send(());
            }
        }
    }
}

/// Runs of one executable.
struct Run<'l> {
    load: &'l Load,
    /// The time of every run, once it is known: no value changes it.
    timeline: Option<Arc<Timeline>>,
}

impl Run<'_> {
    fn once(
        &mut self,
        mode: Mode,
        memory: &mut DeviceMemory<'_>,
        host: &mut FarHost<'_>,
    ) -> Result<Arc<Timeline>> {
        host.watch()?;
        let timeline = self.timeline(host)?;
        if mode == Mode::TimeAndExecute {
            let (tiles, streaming) = memory.parts()?;
            let outcome = execute::run(tiles, host, streaming);
            // Why the host stopped the run is what its caller wants to know.
            if let Some(reason) = host.stopped.take() {
                return Err(reason);
            }
            outcome?;
        }
        Ok(timeline)
    }

    /// The host's clock runs while the time is worked out.
    fn timeline(&mut self, host: &mut FarHost<'_>) -> Result<Arc<Timeline>> {
        if let Some(known) = &self.timeline {
            return Ok(Arc::clone(known));
        }
        let Load {
            executable,
            machine,
            ..
        } = self.load;
        let mut stopped = None;
        let mut goes_on = || {
            stopped = host.check_clock().err();
            stopped.is_none()
        };
        let (program, timing) = (&executable.program, executable.timing);
        let timeline = engine::time_verified(program, machine, timing, &mut goes_on)?;
        match (timeline, stopped) {
            (Some(timeline), _) => Ok(Arc::clone(self.timeline.insert(Arc::new(timeline)))),
            (None, Some(reason)) => Err(reason),
            (None, None) => unreachable!("only the clock stops it"),
        }
    }
}

/// The host as the device thread sees it: at the other end of a channel, with an eye on the clock
/// and on the hardware.
struct FarHost<'e> {
    load: &'e Load,
    ipus: Vec<IpuId>,
    events: &'e Sender<Event>,
    /// When the host last heard of the device.
    synced: Duration,
    /// Why the host doesn't want to go on.
    stopped: Option<DeviceError>,
}

impl<'e> FarHost<'e> {
    fn new(load: &'e Load, events: &'e Sender<Event>) -> Self {
        Self {
            load,
            ipus: load.device.ipus().collect(),
            events,
            synced: load.ports.clock.now(),
            stopped: None,
        }
    }

    /// Where the host has gone away in the middle of a run, which takes a panic in a stream, the
    /// run ends with an error that nobody reads.
    fn ask<T>(
        &mut self,
        event: impl FnOnce(Sender<std::result::Result<T, StreamError>>) -> Event,
    ) -> std::result::Result<T, StreamError> {
        let (answer, answered) = channel();
        drop(self.events.send(event(answer)));
        let answer = answered.recv().unwrap_or(Err(StreamError::NotConnected));
        // What the host takes for its answer isn't the device's time.
        self.synced = self.load.ports.clock.now();
        answer
    }

    /// What a host looks after while it waits for a device.
    fn watch(&mut self) -> Result<()> {
        let device = self.load.device.id;
        if let Some(fault) = self.load.ports.hardware.fault(&self.ipus) {
            return Err(DeviceError::Hardware {
                device,
                fault,
                class: fault.class(&self.load.machine),
            });
        }
        self.check_clock()
    }

    /// Whether the host has waited for too long.
    fn check_clock(&mut self) -> Result<()> {
        let Some(timeout) = self.load.executable.host_sync_timeout else {
            return Ok(());
        };
        let now = self.load.ports.clock.now();
        // From where a clock went back to, it is looked at anew.
        self.synced = self.synced.min(now);
        if now - self.synced <= timeout {
            return Ok(());
        }
        let device = self.load.device.id;
        Err(DeviceError::HostSyncTimeout { device, timeout })
    }
}

impl Host for FarHost<'_> {
    fn read(
        &mut self,
        replica: ReplicaId,
        stream: StreamId,
    ) -> std::result::Result<Vec<f64>, StreamError> {
        self.ask(|answer| Event::StreamRead {
            replica,
            stream,
            answer,
        })
    }

    fn write(
        &mut self,
        replica: ReplicaId,
        stream: StreamId,
        values: Vec<f64>,
    ) -> std::result::Result<(), StreamError> {
        self.ask(|answer| Event::StreamWrite {
            replica,
            stream,
            values,
            answer,
        })
    }

    fn goes_on(&mut self) -> bool {
        self.stopped = self.watch().err();
        self.stopped.is_none()
    }
}
