//! From a run and a machine to metrics: a pure function.
//!
//! It compiles the run, weighs and times the program, and sorts what came out. No device is
//! attached, no file opened and no clock read; threads that share a [`PlanCache`] evaluate many runs
//! side by side.

use ipu_sim::engine::{self, Timeline};
use ipu_sim::program::StreamId;
use ipu_sim::spec::MachineSpec;
use ipu_sim::units::{Cycles, SimSeconds};
use ipu_sim::weigh::{self, MemoryUsage};
use popart_graph::passes::Watch;
use popart_graph::plan::PlanCache;

use crate::accuracy::domain::Features;
use crate::accuracy::effects::Effects;
use crate::accuracy::machine::Constants;
use crate::accuracy::{Record, Subject};
use crate::compile::{Compiled, compile};
use crate::config::RunConfig;
use crate::error::Result;
use crate::explain::Explanation;
use crate::headroom::Headroom;
use crate::measure::{Samples, latency, packs_per_second, sequences_per_second};
use crate::metrics::{Metrics, RegionUse, memory};
use crate::utilisation::Utilisation;

/// How steps are timed.
pub const TIMING: engine::Options = engine::Options {
    mode: engine::Mode::Folded,
    trace_depth: 0,
};

/// Metrics of a run on a machine. `plans` are those of products that are known for its tiles; those
/// that had to be made are added.
///
/// # Errors
///
/// A run that can't be built, placed or compiled; a machine with too few IPUs; a model that no plan
/// could make fit. Any other lack of memory is no error: the metrics say so.
///
/// # Panics
///
/// If `plans` are those of other tiles than the machine's.
pub fn evaluate(config: &RunConfig, machine: &MachineSpec, plans: &PlanCache) -> Result<Metrics> {
    let compiled = compile(config, machine, plans, Watch::nobody())?;
    let program = &compiled.program;
    let weight = weigh::weigh(program, machine)?;
    let timeline = engine::time(program, machine, TIMING)?;
    Ok(metrics(config, machine, &compiled, &weight, &timeline))
}

/// The metrics of a program that was weighed and timed, on a device or without one.
#[must_use]
pub fn metrics(
    config: &RunConfig,
    machine: &MachineSpec,
    compiled: &Compiled,
    weight: &MemoryUsage,
    timeline: &Timeline,
) -> Metrics {
    let program = &compiled.program;
    let ends = compiled.ends.filter(|_| config.is_inference());
    let seconds = |cycles: Cycles| machine.tile.clock.seconds(cycles);
    let step_seconds = seconds(timeline.total);
    let latencies = ends.map_or_else(Vec::new, |ends| latencies(ends, timeline, seconds));
    let throughput = sequences_per_second(config, step_seconds);
    let time = Explanation::new(program, &compiled.profile, timeline, &compiled.placed);
    let refusal = weigh::fits(program, machine, weight).err();
    let subject = Subject {
        features: Features::new(config, machine, &time),
        effects: Effects::of(timeline, machine),
        constants: Constants::of(machine),
        fits: refusal.is_none(),
    };
    Metrics {
        throughput_sequences_per_second: throughput,
        throughput_packs_per_second: packs_per_second(config, step_seconds),
        accuracy: Record::shipped().accuracy(throughput, &subject),
        step_seconds,
        step_cycles: timeline.total,
        device_cycles: timeline.device_cycles(),
        latency_seconds: latency(&latencies),
        latencies,
        fits: refusal.is_none(),
        headroom: Headroom::of(config, weight),
        refusal,
        overflow: RegionUse::too_much(weight),
        ipus: memory(weight),
        time,
        utilisation: Utilisation::new(program, timeline, machine),
    }
}

/// Latencies of the first and the last micro-batch of a step, from the stream read first to the
/// one written last; those between are like the last.
fn latencies(
    (read, write): (StreamId, StreamId),
    timeline: &Timeline,
    seconds: impl Fn(Cycles) -> SimSeconds,
) -> Vec<Samples> {
    let first = timeline.latency_first(read, write);
    let last = timeline.latency_last(read, write);
    let count = timeline.streams[write].map_or(0, |stream| stream.transfers);
    let alike = |cycles, count| Samples {
        value: seconds(cycles),
        count,
    };
    let first = first.map(|cycles| alike(cycles, 1));
    let later = last.map(|cycles| alike(cycles, count.saturating_sub(1)));
    first.into_iter().chain(later).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run;

    const TINY: &str = "--hidden-size 64 --attention-heads 1 --sequence-length 32 \
                        --vocab-length 512 --encoder-start-ipu 0";

    #[test]
    fn the_same_run_gives_the_same_metrics_with_plans_and_without() {
        let (config, machine) = run(&format!("{TINY} --num-layers 2 --mask-tokens 4"));
        let plans = PlanCache::new(machine.tile.clone());
        let first = evaluate(&config, &machine, &plans).unwrap();
        assert!(first.fits && first.throughput_sequences_per_second > 0.0);
        assert_eq!(evaluate(&config, &machine, &plans).unwrap(), first);
        let threads: Vec<Metrics> = std::thread::scope(|scope| {
            let spawn = |_| scope.spawn(|| evaluate(&config, &machine, &plans).unwrap());
            let threads: Vec<_> = (0..4).map(spawn).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(threads.iter().all(|metrics| *metrics == first));
    }

    #[test]
    fn too_few_ipus_are_an_error_and_too_little_memory_is_not() {
        let (config, machine) = run(&format!("{TINY} --replication-factor 16"));
        let plans = PlanCache::new(machine.tile.clone());
        let small = MachineSpec::shipped("mk2-m2000").unwrap();
        assert_eq!(
            evaluate(&config, &small, &plans).unwrap_err().to_string(),
            "the configuration needs 16 IPUs, `mk2-m2000` has 4"
        );
        let words = "--task SQUAD --inference --num-layers 2 --layers-per-ipu 2 \
                     --encoder-start-ipu 0 --hidden-size 128 --attention-heads 2 \
                     --sequence-length 64 --vocab-length 512 --micro-batch-size 64";
        let (config, machine) = run(words);
        let machine = machine.scaled_down(4, 16).unwrap();
        let plans = PlanCache::new(machine.tile.clone());
        let metrics = evaluate(&config, &machine, &plans).unwrap();
        assert!(!metrics.fits && metrics.refusal.is_some());
    }
}
