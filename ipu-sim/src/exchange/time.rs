//! How long does an exchange phase take, from what each tile sends and receives in it?
//!
//! Both tiles of a pair that receive the same stream get it at twice the rate (IPU exchange in
//! paired mode), and one word that several tiles want is sent once. A receiver turns to each of its
//! senders with a few control instructions that run beside the words, so that it can't listen to
//! more senders than that.

use crate::spec::MachineSpec;
use crate::units::{Bytes, BytesPerCycle, Cycles};

/// Traffic of one tile in one exchange phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TileTraffic {
    /// Bytes that arrive from other tiles.
    pub received: u32,
    /// Received bytes that the tile's pair partner receives too.
    pub received_paired: u32,
    /// Bytes that leave for other tiles, each counted once.
    pub sent: u32,
    /// Sent bytes that go to pairs of tiles only, over the lanes of this tile and its partner.
    pub sent_paired: u32,
    /// Messages that arrive, each as many times as it takes descriptions.
    pub messages: u32,
    /// Descriptions of what it listens to, one after the other: at least one for each sender.
    pub turns: u32,
    /// Cycles to or from the most distant tile that it exchanges with.
    pub route: u32,
}

impl TileTraffic {
    fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.received_paired += other.received_paired;
        self.sent += other.sent;
        self.sent_paired += other.sent_paired;
        self.messages += other.messages;
        self.turns += other.turns;
        self.route = self.route.max(other.route);
    }

    /// Cycles that the tile is busy receiving or sending, from its first word to its last, with
    /// `partner` on its other lane.
    #[must_use]
    pub fn busy(&self, partner: &Self, machine: &MachineSpec) -> Cycles {
        let tile = &machine.tile;
        let pair_rate =
            BytesPerCycle(tile.exchange_rate.0 * u64::from(tile.tiles_per_exchange_bus));
        let single = u64::from(self.received - self.received_paired);
        let words = Bytes(single).div_ceil(tile.exchange_rate)
            + Bytes(u64::from(self.received_paired)).div_ceil(pair_rate);
        let per_turn = u64::from(machine.exchange.control_words_per_fragment);
        let control = Cycles(per_turn) * u64::from(self.turns);
        // What goes to pairs takes half of each lane of the sending pair.
        let alone = u64::from(self.sent - self.sent_paired);
        let shared = u64::from(self.sent_paired + partner.sent_paired);
        let sends = Bytes(alone).div_ceil(tile.exchange_rate) + Bytes(shared).div_ceil(pair_rate);
        words.max(control).max(sends)
    }
}

/// Of a tile that has no partner.
pub(super) const NO_TRAFFIC: TileTraffic = TileTraffic {
    received: 0,
    received_paired: 0,
    sent: 0,
    sent_paired: 0,
    messages: 0,
    turns: 0,
    route: 0,
};

/// Cycles of an exchange phase, once all tiles are released: those of the tile that is done last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExchangeTime {
    /// Latency of the first word of the tile that is done last.
    pub route: Cycles,
    /// Words of that tile.
    pub busy: Cycles,
}

/// Traffic of every tile of an IPU in one copy or exchange phase.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Traffic of each tile, in order.
    pub tiles: Vec<TileTraffic>,
}

impl Traffic {
    /// No traffic on `n_tiles` tiles.
    #[must_use]
    pub fn none(n_tiles: u32) -> Self {
        Self {
            tiles: vec![TileTraffic::default(); n_tiles as usize],
        }
    }

    /// Adds what another copy in the same phase moves.
    pub fn add(&mut self, other: &Self) {
        for (tile, more) in self.tiles.iter_mut().zip(&other.tiles) {
            tile.add(more);
        }
    }

    /// Whether nothing moves between tiles.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tiles.iter().all(|tile| tile.received == 0)
    }

    /// The tile that is done last: the latency to its farthest partner, then its words.
    ///
    /// Nothing where nothing moves.
    #[must_use]
    pub fn phase(&self, machine: &MachineSpec) -> ExchangeTime {
        let tiles = self
            .tiles
            .iter()
            .enumerate()
            .map(|(number, tile)| ExchangeTime {
                route: Cycles(u64::from(tile.route)),
                busy: tile.busy(self.tiles.get(number ^ 1).unwrap_or(&NO_TRAFFIC), machine),
            });
        let last = tiles.max_by_key(|phase| (phase.route + phase.busy, phase.busy));
        last.unwrap_or_default()
    }

    /// Bytes received by all tiles.
    #[must_use]
    pub fn bytes_received(&self) -> Bytes {
        self.tiles
            .iter()
            .map(|tile| Bytes(u64::from(tile.received)))
            .sum()
    }
}
