//! What is added up during a walk: where cycles went, who waited for whom, and what moved.
//!
//! Nothing here decides what happens next. An entry counts as often as what its actor does just
//! then happens, so that a folded repeat adds up as if it had been walked.

use std::collections::BTreeMap;
use std::ops::Range;

use super::local::Effect;
use crate::collective::RoundId;
use crate::engine::linked::Linked;
use crate::engine::schedule::{Leaf, Scope};
use crate::engine::timeline::{
    Activity, ActivityCycles, CallTime, ChannelBytes, ConstantUsage, IpuTime, Join, SourceTime,
    StreamTime, Tally, Timeline, Wait, WaitCause,
};
use crate::ids::{Id, IdVec, IpuId};
use crate::network::RouteId;
use crate::program::{FunctionId, SectionId, SourceId, StreamId};
use crate::topology::BundleId;
use crate::trace::{Span, Trace};
use crate::units::{Bytes, Cycles};

/// Who an entry is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    pub(super) actor: usize,
    /// Its class of replicas, and its IPU.
    pub(super) class: usize,
    pub(super) ipu: IpuId,
    /// The section of the program that it is in.
    pub(super) section: Option<SectionId>,
    /// How often what it does now happens.
    pub(super) weight: u64,
}

/// Sums of a walk. All but those of actors, routes and rounds are by class of replicas first.
pub(super) struct Ledger {
    n_ipus: usize,
    /// By actor.
    tallies: Vec<Tally>,
    usage: Vec<ConstantUsage>,
    /// Trust ratios on the way to where each actor is: its own, and those of actors that it waited
    /// for.
    ratios: Vec<u64>,
    /// By class, IPU and line: an IPU goes through lines that are neighbours.
    sources: Vec<IdVec<IpuId, IdVec<SourceId, SourceTime>>>,
    sections: Vec<IdVec<SectionId, IdVec<IpuId, ActivityCycles>>>,
    functions: Vec<BTreeMap<FunctionId, IdVec<IpuId, CallTime>>>,
    waits: Vec<BTreeMap<Wait, Cycles>>,
    joins: Vec<BTreeMap<Join, u64>>,
    moved: Vec<ChannelBytes>,
    /// Bytes of the transfers of each route, and rounds of collectives.
    carried: IdVec<RouteId, Bytes>,
    rounds: IdVec<RoundId, u64>,
    /// With their actors.
    spans: Vec<(usize, Span)>,
}

impl Ledger {
    /// Nothing has happened yet.
    pub(super) fn new(linked: &Linked) -> Self {
        let schedule = &linked.schedule;
        let (n_classes, n_ipus) = (schedule.n_classes as usize, schedule.n_ipus as usize);
        let sources = vec![vec![SourceTime::default(); schedule.n_sources].into(); n_ipus];
        let sections = vec![vec![ActivityCycles::default(); n_ipus].into(); schedule.n_sections];
        Self {
            n_ipus,
            tallies: vec![Tally::default(); linked.n_actors()],
            usage: vec![ConstantUsage::default(); linked.n_actors()],
            ratios: vec![0; linked.n_actors()],
            sources: vec![sources.into(); n_classes],
            sections: vec![sections.into(); n_classes],
            functions: vec![BTreeMap::new(); n_classes],
            waits: vec![BTreeMap::new(); n_classes],
            joins: vec![BTreeMap::new(); n_classes],
            moved: vec![ChannelBytes::default(); n_classes],
            carried: schedule.network.routes.ids().map(|_| Bytes::ZERO).collect(),
            rounds: schedule.rounds.ids().map(|_| 0).collect(),
            spans: Vec::new(),
        }
    }

    /// What an actor has spent and computed so far.
    pub(super) fn tally(&self, actor: usize) -> Tally {
        self.tallies[actor]
    }

    /// The host's start of the run, which belongs to no step.
    pub(super) fn start(&mut self, account: Account, cycles: Cycles) {
        self.tallies[account.actor]
            .spent
            .add(Activity::Idle, cycles);
        self.usage[account.actor].runs = 1;
        self.wait(account, WaitCause::Host, cycles);
    }

    /// Cycles of one activity in a step.
    pub(super) fn spend(
        &mut self,
        account: Account,
        source: SourceId,
        activity: Activity,
        cycles: Cycles,
    ) {
        let Account { class, ipu, .. } = account;
        let weighted = cycles * account.weight;
        self.tallies[account.actor].spent.add(activity, weighted);
        self.sources[class][ipu][source]
            .spent
            .add(activity, weighted);
        if let Some(section) = account.section {
            self.sections[class][section][ipu].add(activity, weighted);
        }
    }

    /// The reason of idle cycles.
    pub(super) fn wait(&mut self, account: Account, on: WaitCause, cycles: Cycles) {
        let wait = Wait {
            ipu: account.ipu,
            section: account.section,
            on,
        };
        *self.waits[account.class].entry(wait).or_default() += cycles * account.weight;
    }

    /// The meeting of several IPUs, seen by one of them.
    pub(super) fn join(&mut self, account: Account, scope: Scope, join: Join) {
        let classes = self.classes(account, scope);
        for joins in &mut self.joins[classes] {
            *joins.entry(join).or_default() += account.weight;
        }
    }

    /// A step that begins, waiting for `answers` of the host: what it computes and pays for.
    pub(super) fn step(&mut self, account: Account, leaf: &Leaf, answers: u64) {
        let tally = &mut self.tallies[account.actor];
        tally.products.add(&leaf.products, account.weight);
        self.pay(account, &leaf.usage);
        self.usage[account.actor].answers += answers * account.weight;
        self.sources[account.class][account.ipu][leaf.source].steps += account.weight;
    }

    /// What is paid for by the piece.
    pub(super) fn pay(&mut self, account: Account, usage: &ConstantUsage) {
        self.usage[account.actor].add(usage, account.weight);
        self.ratios[account.actor] += usage.trust_ratios * account.weight;
    }

    /// Several actors meet: what the last of them took to get here, all have waited for.
    pub(super) fn meet(&mut self, actors: &[usize], last: usize) {
        for &actor in actors {
            self.ratios[actor] = self.ratios[last];
        }
    }

    /// A call that is over, of an actor that had spent `before` when it began.
    pub(super) fn call(&mut self, account: Account, function: FunctionId, before: &Tally) {
        let n_ipus = self.n_ipus;
        let now = self.tallies[account.actor];
        let called = self.functions[account.class].entry(function);
        let called = called.or_insert_with(|| vec![CallTime::default(); n_ipus].into());
        let called = &mut called[account.ipu];
        called.calls += account.weight;
        called.tally.spent.add_all(&now.spent.since(&before.spent));
        let computed = now.products.since(&before.products);
        called.tally.products.add(&computed, 1);
    }

    /// All that steps do which concern their actor alone.
    pub(super) fn local(&mut self, account: Account, effect: &Effect) {
        let Account { class, ipu, .. } = account;
        let (n_ipus, times) = (self.n_ipus, account.weight);
        self.tallies[account.actor].add(&effect.tally, times);
        self.pay(account, &effect.usage);
        for (&source, time) in &effect.sources {
            let sum = &mut self.sources[class][ipu][source];
            sum.spent.add_times(&time.spent, times);
            sum.steps += time.steps * times;
        }
        for (&section, spent) in &effect.sections {
            self.sections[class][section][ipu].add_times(spent, times);
        }
        for (&function, called) in &effect.functions {
            let sum = self.functions[class].entry(function);
            let sum = sum.or_insert_with(|| vec![CallTime::default(); n_ipus].into());
            sum[ipu].calls += called.calls * times;
            sum[ipu].tally.add(&called.tally, times);
        }
    }

    /// Bytes that leave IPUs in a step, and its rounds of collectives.
    pub(super) fn moved(&mut self, account: Account, leaf: &Leaf) {
        let classes = self.classes(account, leaf.scope);
        for moved in &mut self.moved[classes] {
            for &(channel, bytes) in &leaf.moves {
                moved.add(channel, bytes * account.weight);
            }
        }
        for &(round, times) in &leaf.rounds {
            self.rounds[round] += u64::from(times) * account.weight;
        }
    }

    /// Bytes of a transfer on its route, if that has links.
    pub(super) fn carry(&mut self, account: Account, route: Option<RouteId>, bytes: Bytes) {
        if let Some(route) = route {
            self.carried[route] += bytes * account.weight;
        }
    }

    /// A stretch of an actor's time, for the trace.
    pub(super) fn record(&mut self, actor: usize, span: Span) {
        self.spans.push((actor, span));
    }

    /// The sums of the class that stands for the program, which took `total`.
    ///
    /// `clocks` are those of the actors at their ends.
    pub(super) fn close(
        mut self,
        linked: &Linked,
        class: usize,
        clocks: &[Cycles],
        total: Cycles,
        streams: IdVec<StreamId, Option<StreamTime>>,
    ) -> Timeline {
        let n_ipus = self.n_ipus;
        let carried = self.loads(linked);
        let mine = (0..n_ipus).map(|ipu| linked.actor(class, IpuId::from_index(ipu)));
        let mine: Vec<usize> = mine.collect();
        let mut waits = self.waits.swap_remove(class);
        let mut ipus = IdVec::new();
        for (&actor, ipu) in mine.iter().zip((0..).map(IpuId)) {
            let (finish, mut tally) = (clocks[actor], self.tallies[actor]);
            assert_eq!(
                tally.spent.total(),
                finish,
                "{ipu}: activities don't sum to its clock"
            );
            if total > finish {
                let wait = Wait {
                    ipu,
                    section: None,
                    on: WaitCause::End,
                };
                waits.insert(wait, total - finish);
            }
            tally.spent.add(Activity::Idle, total - finish);
            ipus.push(IpuTime {
                finish,
                tally,
                usage: ConstantUsage {
                    trust_ratios: self.ratios[actor],
                    ..self.usage[actor]
                },
            });
        }
        let functions = (0..linked.n_functions).map(|function| {
            let called = self.functions[class].remove(&FunctionId::from_index(function));
            called.unwrap_or_else(|| vec![CallTime::default(); n_ipus].into())
        });
        let functions = functions.collect();
        let spans = self.spans.into_iter();
        let spans = spans.filter(|(actor, _)| mine.contains(actor));
        let mut spans: Vec<Span> = spans.map(|(_, span)| span).collect();
        // A repeat stands in front of the steps of its body.
        spans.sort_by(|a, b| (&a.path, a.ipu).cmp(&(&b.path, b.ipu)));
        Timeline {
            total,
            start: linked.schedule.start,
            ipus,
            sources: by_source(&self.sources.swap_remove(class)),
            sections: self.sections.swap_remove(class),
            functions,
            waits,
            joins: self.joins.swap_remove(class),
            streams,
            moved: self.moved[class],
            carried,
            trace: Trace { spans },
        }
    }

    /// The classes that take part in what an actor does.
    fn classes(&self, account: Account, scope: Scope) -> Range<usize> {
        match scope {
            Scope::Replica => account.class..account.class + 1,
            Scope::AllReplicas => 0..self.moved.len(),
        }
    }

    /// Bytes that each link of the machine has carried.
    fn loads(&self, linked: &Linked) -> IdVec<BundleId, Bytes> {
        let schedule = &linked.schedule;
        let mut loads: IdVec<BundleId, Bytes> =
            (0..schedule.n_bundles).map(|_| Bytes::ZERO).collect();
        let carried = self.carried.iter().map(|(route, &bytes)| (route, bytes));
        for (bundle, bytes) in schedule.network.loads(&carried.collect::<Vec<_>>()) {
            loads[bundle] += bytes;
        }
        for (bundle, bytes) in schedule.rounds.loads(&self.rounds) {
            loads[bundle] += bytes;
        }
        loads
    }
}

/// Times of each line on every IPU, of those of each IPU in every line.
fn by_source(
    by_ipu: &IdVec<IpuId, IdVec<SourceId, SourceTime>>,
) -> IdVec<SourceId, IdVec<IpuId, SourceTime>> {
    let lines = by_ipu.values().next().map_or(0, IdVec::len);
    let lines = (0..lines).map(SourceId::from_index);
    lines
        .map(|source| by_ipu.values().map(|of_ipu| of_ipu[source]).collect())
        .collect()
}
