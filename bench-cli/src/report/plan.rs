//! Plans of a matrix product as tables to read.

use popart_graph::plan::MatMulShape;

use crate::plan::{Layer, Passes, PlanEntry, Plans};

impl Plans {
    /// The chosen plan with its costs, and the runners-up, with a line on how to read them.
    #[must_use]
    pub fn text(&self) -> String {
        let Self {
            groups, m, k, n, ..
        } = *self;
        let shape = MatMulShape { groups, m, k, n };
        let chosen = &self.plans[0];
        let bound = match chosen.memory_bound_bytes {
            Some(bytes) => format!("within {bytes} B a tile"),
            None if self.smallest => "for the least memory".into(),
            None => "without a bound on memory".into(),
        };
        let refused = chosen.program.refused.as_ref();
        let refused = refused.map_or(String::new(), |why| format!("It doesn't fit: {why}.\n"));
        let layer = self.layer.as_ref().map_or(String::new(), Layer::text);
        format!(
            "{shape}, ideal {} cycles; chosen {bound}: {}, {}, {}\n\
             {}\n\
             The program's operands lie where the plan wants them, so that nothing is rearranged.\n\
             {refused}\n\
             {layer}The chosen plan and its runners-up:\n\
             {}\n\
             splits: parts of groups, field (x), channels in (i) and out (o) on different tiles; \
             serial: parts one after the other, `once` where the input is broadcast before them; \
             order: `joint` is swapped, too, and its cuts are those of all passes; \
             vertex in/out: the codelet with its channels in and out; amp: its cycles; \
             program: cycles of the program that the plan is lowered to\n",
            self.ideal_cycles,
            chosen.splits(),
            chosen.order(),
            chosen.vertex(),
            chosen.costs(),
            self.table(),
        )
    }

    /// All plans, one a row.
    fn table(&self) -> comfy_table::Table {
        let mut table = comfy_table::Table::new();
        table
            .load_style(comfy_table::presets::ASCII_MARKDOWN)
            .set_header([
                "cycles",
                "util",
                "amp",
                "exchange",
                "reduce",
                "transform",
                "other",
                "tiles",
                "memory B",
                "splits",
                "serial",
                "order",
                "vertex in/out",
                "program",
            ]);
        for plan in &self.plans {
            table.add_row([
                plan.cycles.to_string(),
                format!("{:.0} %", 100.0 * plan.utilisation),
                plan.amp.to_string(),
                plan.exchange.to_string(),
                plan.reduce.to_string(),
                plan.transform.to_string(),
                plan.other.to_string(),
                plan.tiles.to_string(),
                plan.temporary_bytes.to_string(),
                plan.splits(),
                plan.serial(),
                plan.order().into(),
                plan.vertex(),
                plan.program.cycles.to_string(),
            ]);
        }
        table
    }
}

impl Layer {
    /// Both ways, and which one is used.
    fn text(&self) -> String {
        let mut table = comfy_table::Table::new();
        table
            .load_style(comfy_table::presets::ASCII_MARKDOWN)
            .set_header(["passes planned", "fwd", "bwd", "wu", "cycles", "memory B"]);
        let apart = Some(&self.separate);
        for (name, passes) in [("apart", apart), ("jointly", self.joint.as_ref())] {
            let numbers = match passes {
                Some(passes) => {
                    let Passes {
                        fwd,
                        bwd,
                        wu,
                        cycles,
                        temporary_bytes,
                    } = *passes;
                    [fwd, bwd, wu, cycles, temporary_bytes].map(|number| number.to_string())
                }
                None => [(); 5].map(|()| "-".into()),
            };
            table.add_row(std::iter::once(name.to_string()).chain(numbers));
        }
        let used = if self.is_joint { "jointly" } else { "apart" };
        format!("The layer's passes are planned {used}:\n{table}\n\n")
    }
}

impl PlanEntry {
    fn splits(&self) -> String {
        let Self {
            groups,
            field,
            in_channels,
            out_channels,
            ..
        } = self;
        format!("g{groups} x{field} i{in_channels} o{out_channels}")
    }

    fn serial(&self) -> String {
        match (self.in_channels_serial, self.out_channels_serial) {
            (1, 1) => "-".into(),
            (parts, 1) => format!("i{parts}"),
            (_, parts) if self.broadcast_input_once => format!("o{parts} once"),
            (_, parts) => format!("o{parts}"),
        }
    }

    /// The codelet with the channels that it takes in and out at once.
    fn vertex(&self) -> String {
        let (channels_in, channels_out) = (self.in_channels_per_group, self.out_channels_per_group);
        format!("{} {channels_in}/{channels_out}", self.vertex)
    }

    fn order(&self) -> &'static str {
        match (self.joint, self.swapped) {
            (true, _) => "joint",
            (false, true) => "swapped",
            (false, false) => "as given",
        }
    }

    /// The estimate by cause, beside the program's time and memory.
    fn costs(&self) -> comfy_table::Table {
        let mut table = comfy_table::Table::new();
        table
            .load_style(comfy_table::presets::ASCII_MARKDOWN)
            .set_header(["part", "estimate", "program"]);
        let program = &self.program;
        let vertices =
            self.amp + self.reduce + self.slices + self.updates + self.sums + self.cast_after_loop;
        let exchange = self.exchange + self.broadcast_before_loop;
        let rearranging = self.transform + self.rearrange_before_loop;
        let rows = [
            ("vertices", Some(vertices), Some(program.compute)),
            ("  multiplying", Some(self.amp), None),
            ("  reduction", Some(self.reduce), None),
            ("  slices", Some(self.slices), None),
            ("  updates and sums", Some(self.updates + self.sums), None),
            ("  cast", Some(self.cast_after_loop), None),
            ("exchange", Some(exchange), Some(program.exchange)),
            ("rearrangement", Some(rearranging), None),
            ("launch", None, Some(program.launch)),
            ("cycles", Some(self.cycles), Some(program.cycles)),
            (
                "temporary bytes",
                Some(self.temporary_bytes),
                Some(program.temporary_bytes),
            ),
        ];
        let is_detail = |part: &str| part.starts_with(' ');
        for (part, estimate, program) in rows {
            if is_detail(part) && estimate == Some(0) {
                continue;
            }
            let cell = |number: Option<u64>| number.map_or("-".into(), |number| number.to_string());
            table.add_row([part.to_string(), cell(estimate), cell(program)]);
        }
        table
    }
}
