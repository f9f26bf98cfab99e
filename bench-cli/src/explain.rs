//! Where the time of a step went: cycles of every IPU by activity, by kind of operation and by
//! part of the model.
//!
//! On every IPU the cycles by activity add up to the step exactly; those by kind, and those by
//! part, add up to it together with the idle cycles.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use ipu_sim::engine::{Activity, Timeline};
use ipu_sim::program::Program;
use ipu_sim::units::Cycles;
use serde::{Deserialize, Serialize};

/// Cycles of one IPU in a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpuCycles {
    /// What the IPU was doing; all of the step.
    pub by_activity: BTreeMap<String, Cycles>,
    /// Kinds of operations (`matmul`, `layer_norm`, ...), waiting not counted.
    pub by_kind: BTreeMap<String, Cycles>,
    /// Parts of the model (`Layer3`, `Embedding`, ...), waiting not counted.
    pub by_part: BTreeMap<String, Cycles>,
}

/// One way to sort an IPU's cycles.
type Cause = fn(&IpuCycles) -> &BTreeMap<String, Cycles>;

/// The cycles of every IPU of a replica.
#[must_use]
pub fn cycles(program: &Program, timeline: &Timeline) -> Vec<IpuCycles> {
    let mut ipus: Vec<IpuCycles> = timeline
        .ipus
        .values()
        .map(|ipu| {
            let spent = Activity::ALL.map(|activity| (name(activity), ipu.spent.on(activity)));
            IpuCycles {
                by_activity: spent.into_iter().collect(),
                ..IpuCycles::default()
            }
        })
        .collect();
    for (id, times) in timeline.sources.iter() {
        let source = program.source(id);
        let part = source.name.split('/').next().unwrap_or_default();
        for (cycles, time) in ipus.iter_mut().zip(times.values()) {
            let idle = time.spent.on(Activity::Idle);
            let busy = Cycles(time.spent.total().0 - idle.0);
            if busy > Cycles::ZERO {
                *cycles.by_kind.entry(source.kind.clone()).or_default() += busy;
                *cycles.by_part.entry(part.to_owned()).or_default() += busy;
            }
        }
    }
    ipus
}

fn name(activity: Activity) -> String {
    let word = match activity {
        Activity::Compute => "compute",
        Activity::Exchange => "exchange",
        Activity::Sync => "sync",
        Activity::IpuCopy => "ipu_copy",
        Activity::Host => "host",
        Activity::StreamingMemory => "streaming_memory",
        Activity::Collective => "collective",
        Activity::Idle => "idle",
    };
    word.into()
}

/// Shares of a step of `total` cycles as a table, an IPU a column.
#[must_use]
pub fn text(ipus: &[IpuCycles], total: Cycles) -> String {
    let mut table = Table::new();
    let ipu_names = (0..ipus.len()).map(|ipu| format!("IPU {ipu} %"));
    let header = ["where the time went".to_string()].into_iter();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_header(header.chain(ipu_names));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let sections: [(&str, Cause); 3] = [
        ("activity", |ipu| &ipu.by_activity),
        ("kind", |ipu| &ipu.by_kind),
        ("part", |ipu| &ipu.by_part),
    ];
    for (section, map) in sections {
        let mut names: Vec<(&String, Cycles)> = Vec::new();
        for (name, &cycles) in ipus.iter().flat_map(map) {
            match names.iter_mut().find(|(known, _)| *known == name) {
                Some((_, most)) => *most = (*most).max(cycles),
                None => names.push((name, cycles)),
            }
        }
        names.sort_by_key(|&(name, most)| (std::cmp::Reverse(most), name));
        for (name, _) in names {
            let shares = ipus.iter().map(|ipu| {
                let cycles = map(ipu).get(name).copied().unwrap_or_default();
                format!("{:.2}", 100.0 * cycles.0 as f64 / total.0 as f64)
            });
            let row = [format!("{section}: {name}")].into_iter().chain(shares);
            table.add_row(row);
        }
    }
    format!("{table}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Date;
    use crate::request::prepare;
    use crate::run::TIMING;
    use crate::{args, compile};
    use ipu_sim::engine;

    #[test]
    fn every_cycle_of_every_ipu_has_a_cause() {
        let check = |words: &str| {
            let given = args::parse(words.split_whitespace().map(String::from)).unwrap();
            let request = prepare(&given, Date::now()).unwrap().request;
            let machine = &request.machine.spec;
            let lowered = compile::compile(&request.options, machine).unwrap().lowered;
            let timeline = engine::time(&lowered.program, machine, TIMING).unwrap();
            let found = cycles(&lowered.program, &timeline);
            for ipu in &found {
                let sum = |map: &BTreeMap<String, Cycles>| map.values().map(|c| c.0).sum::<u64>();
                let idle = ipu.by_activity["idle"].0;
                assert_eq!(sum(&ipu.by_activity), timeline.total.0, "{words}");
                assert_eq!(sum(&ipu.by_kind) + idle, timeline.total.0, "{words}");
                assert_eq!(sum(&ipu.by_part) + idle, timeline.total.0, "{words}");
            }
            assert!(text(&found, timeline.total).contains("kind: matmul"));
        };
        let model = "--generated-data true --hidden-size 64 --attention-heads 1 \
                     --sequence-length 32 --vocab-length 512 --num-layers 2 --encoder-start-ipu 0";
        check(&format!(
            "{model} --task SQUAD --inference --layers-per-ipu 2"
        ));
        check(&format!(
            "{model} --epochs 1 --layers-per-ipu 1 1 --mask-tokens 4 --optimizer LAMB \
             --execution-mode PIPELINE --gradient-accumulation-factor 8 --replication-factor 2 \
             --replicated-tensor-sharding true --optimizer-state-offchip true"
        ));
    }
}
