//! Emits steps of a program: variables, exchanges, and vertices over matching layouts.
//!
//! The rules that every operation follows are in `builder/`, once: where element-wise operations
//! happen, how tensors change their tiles or their axes, and how reductions come together.

mod elementwise;
mod moves;
mod reduce;
mod views;

use std::collections::BTreeMap;

use indexmap::IndexMap;
use ipu_sim::ids::IpuId;
use ipu_sim::layout::Layout;
use ipu_sim::numerics::DType;
use ipu_sim::program::{
    ComputeSet, Exchange, Operand, Program, Role, Source, SourceId, Step, TileCopy, VarId, VarKind,
    Variable, VertexGroup,
};
use ipu_sim::spec::TileSpec;
use ipu_sim::vertex::Vertex;
use smallvec::SmallVec;

pub(crate) use self::reduce::Reduction;
use super::layouts;
use super::value::Value;
use crate::ir::{PartId, Parts};
use crate::profile::{Line, Profile, Section};

/// Emits the steps of one IPU at a time.
pub(crate) struct Builder<'a> {
    pub(crate) program: Program,
    /// What the program's lines and sections stand for.
    pub(crate) profile: Profile,
    pub(crate) spec: &'a TileSpec,
    /// Where steps go; swapped by callers that build functions.
    pub(crate) steps: Vec<Step>,
    /// IPU of what is emitted now.
    pub(crate) ipu: IpuId,
    /// Line of the profile of what is emitted now.
    pub(crate) source: SourceId,
    /// The lines there are.
    lines: IndexMap<(Source, Line), SourceId>,
    /// First tile for the next small tensor, by IPU and part of the model.
    next_tile: BTreeMap<(IpuId, Option<PartId>), u32>,
}

impl<'a> Builder<'a> {
    /// Starts with a program whose profile sorts by `parts`.
    pub(crate) fn new(program: Program, parts: Parts, spec: &'a TileSpec) -> Self {
        Self {
            program,
            profile: Profile {
                parts,
                ..Profile::default()
            },
            spec,
            steps: Vec::new(),
            ipu: IpuId(0),
            source: SourceId(0),
            lines: IndexMap::new(),
            next_tile: BTreeMap::new(),
        }
    }

    /// The line of the profile for steps that do `role` for `name`, added if it is new.
    pub(crate) fn line(&mut self, name: &str, line: Line, role: Role) -> SourceId {
        let source = Source {
            name: name.to_owned(),
            kind: line.kind.name().to_owned(),
            role,
        };
        let key = (source, line);
        if let Some(&known) = self.lines.get(&key) {
            return known;
        }
        let id = self.program.sources.push(key.0.clone());
        self.profile.lines.push(line);
        self.lines.insert(key, id);
        id
    }

    /// The step that begins a section.
    pub(crate) fn section(&mut self, section: Section) -> Step {
        if self.profile.section(section).is_none() {
            self.profile.sections.push(section);
        }
        self.program.section(section.name())
    }

    /// A name for `what` the operation at work needs on its way: `Layer3/FF/1/operand`.
    pub(crate) fn part(&self, what: &str) -> String {
        format!("{}/{what}", self.program.source(self.source).name)
    }

    pub(crate) fn add_var(
        &mut self,
        name: &str,
        dtype: DType,
        layout: Layout,
        kind: VarKind,
    ) -> VarId {
        assert!(
            layout.tile_end() <= self.spec.tiles_per_ipu,
            "`{name}` reaches past the last tile"
        );
        let layout = self.program.add_layout(layout);
        self.program.vars.push(Variable {
            name: name.to_owned(),
            dtype,
            ipu: self.ipu,
            layout,
            kind,
        })
    }

    /// A new variable seen as it is.
    pub(crate) fn new_value(
        &mut self,
        name: &str,
        dtype: DType,
        layout: Layout,
        kind: VarKind,
    ) -> Value {
        let var = self.add_var(name, dtype, layout, kind);
        self.value_of(var)
    }

    pub(crate) fn value_of(&self, var: VarId) -> Value {
        Value::of(self.program.view(var), self.program.vars[var].dtype)
    }

    /// An even layout for a tensor that no operation has an opinion on.
    ///
    /// Small tensors of a part of the model lie beside each other, those of one part behind
    /// another's. PopART goes on from tile to tile over all tensors of an IPU (`linearmapper.cpp`);
    /// by parts, what one costs doesn't hang on what else there is.
    pub(crate) fn spread(&mut self, shape: &[u32], dtype: DType) -> Layout {
        let n_tiles = self.spec.tiles_per_ipu;
        let mut layout = layouts::spread(shape, dtype, n_tiles);
        let part = self
            .profile
            .lines
            .get(self.source)
            .and_then(|line| line.part);
        let next = self.next_tile.entry((self.ipu, part));
        let next = next.or_insert_with(|| layouts::first_tile(part, n_tiles));
        let used = layout.tile_end();
        if *next + used > n_tiles {
            *next = 0;
        }
        layout.first_tile = *next;
        *next += used;
        layout
    }

    pub(crate) fn emit_compute(&mut self, vertices: Vec<VertexGroup>) {
        self.steps.push(Step::Compute(ComputeSet {
            source: self.source,
            ipu: self.ipu,
            vertices,
        }));
    }

    /// What `emit` emits changes layouts and computes nothing.
    fn changing_layout<T>(&mut self, emit: impl FnOnce(&mut Self) -> T) -> T {
        self.in_role(Role::Layout, emit)
    }

    /// What `emit` emits has a role of its own in the operation, by which the profile tells it
    /// apart; but all that is copied for a call or a layout is just that.
    pub(crate) fn in_role<T>(&mut self, role: Role, emit: impl FnOnce(&mut Self) -> T) -> T {
        let around = self.source;
        let source = self.program.source(around);
        match source.role {
            Role::Layout | Role::Call => {}
            Role::Work | Role::Reduction | Role::Slicing => {
                let name = source.name.clone();
                self.source = self.line(&name, self.profile.lines[around], role);
            }
        }
        let out = emit(self);
        self.source = around;
        out
    }

    pub(crate) fn emit_exchange(&mut self, copies: Vec<TileCopy>) {
        if !copies.is_empty() {
            self.steps.push(Step::Exchange(Exchange {
                source: self.source,
                ipu: self.ipu,
                copies,
            }));
        }
    }

    /// Fills a variable with a constant.
    pub(crate) fn fill(&mut self, var: VarId, value: f64) {
        let labels: Vec<u8> = (0..self.program.layout_of(var).axes.len() as u8).collect();
        self.emit_compute(vec![VertexGroup {
            vertex: Vertex::Fill(value),
            output: Operand::new(var, &labels),
            inputs: SmallVec::new(),
        }]);
    }
}

#[cfg(test)]
mod tests {
    use ipu_sim::spec::MachineSpec;

    use super::*;
    use crate::ir::Part;
    use crate::profile::LineKind;

    /// First tiles of small tensors that one part makes after another has made `before` of them.
    fn first_tiles(before: usize) -> Vec<u32> {
        let spec = &MachineSpec::shipped("mk2-m2000").unwrap().tile;
        let mut parts = Parts::default();
        let [other, own] = ["Layer0", "Layer1"].map(|name| parts.add(Part::single(name)));
        let mut builder = Builder::new(Program::new(1, 1), parts, spec);
        let mut make = |part: PartId, n: usize| -> Vec<u32> {
            let line = Line::around(LineKind::HostInput, Some(part));
            builder.source = builder.line("work", line, Role::Work);
            let layouts = (0..n).map(|_| builder.spread(&[1024], DType::F16));
            layouts.map(|layout| layout.first_tile).collect()
        };
        make(other, before);
        make(own, 3)
    }

    #[test]
    fn a_part_lies_where_it_lies_whatever_else_there_is() {
        let alone = first_tiles(0);
        assert_eq!(alone, first_tiles(7));
        // 2 KiB are 16 tiles of 128 bytes, and small tensors of a part lie side by side.
        let steps: Vec<u32> = alone.windows(2).map(|two| two[1] - two[0]).collect();
        assert_eq!(steps, [16, 16]);
    }
}
