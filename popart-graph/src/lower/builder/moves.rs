//! Tensors that change their tiles: what is neighbours in memory elsewhere is transposed where it
//! lies, then everything of one phase is exchanged.

use ipu_sim::layout::{Layout, StorageLoop};
use ipu_sim::program::{Operand, TileCopy, VarId, VarKind, VertexGroup};
use ipu_sim::vertex::Vertex;
use ipu_sim::view::View;
use smallvec::SmallVec;

use super::Builder;
use crate::lower::value::Value;

/// Rows of a block that is transposed at once: as many as the AMP takes channels in.
const TRANSPOSED_BLOCK: u32 = 16;

/// How data that moves between tiles ends up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    /// As an operand, ready for the vertices that wanted it.
    Operand,
    /// As a tensor in another layout.
    InPlace,
    /// The same, put in order by vertices on its tile.
    Assembled,
}

impl Builder<'_> {
    /// An operand in a variable of `layout`, whose axes are the tensor's.
    ///
    /// The variable it already lies in, if that has this layout.
    pub(crate) fn materialise(&mut self, value: &Value, layout: &Layout, name: &str) -> VarId {
        self.materialise_many(&[(value, layout)], name)[0]
    }

    /// Several operands at once, in one exchange phase.
    pub(crate) fn materialise_many(
        &mut self,
        wanted: &[(&Value, &Layout)],
        name: &str,
    ) -> Vec<VarId> {
        self.move_many(wanted, name, Arrival::Operand)
    }

    /// As [`Self::materialise`], for no vertex in particular: a change of layout.
    pub(crate) fn relay(&mut self, value: &Value, layout: &Layout, name: &str) -> VarId {
        self.changing_layout(|this| this.move_many(&[(value, layout)], name, Arrival::InPlace)[0])
    }

    /// Several tensors at once, each as a tensor of its own: what arrives in fragments is put
    /// in order on its tile, where vertices that read from many tiles would take it as it comes.
    pub(crate) fn rearrange_many(
        &mut self,
        wanted: &[(&Value, &Layout)],
        name: &str,
    ) -> Vec<VarId> {
        self.changing_layout(|this| this.move_many(wanted, name, Arrival::Assembled))
    }

    fn move_many(
        &mut self,
        wanted: &[(&Value, &Layout)],
        name: &str,
        arrival: Arrival,
    ) -> Vec<VarId> {
        let mut transposes = Vec::new();
        let mut copies = Vec::new();
        let mut assemblies = Vec::new();
        let mut vars = Vec::new();
        for (value, layout) in wanted {
            let whole = value.whole(|var| self.program.shape_of(var));
            if let Some(var) = whole.filter(|&var| self.program.layout_of(var) == *layout) {
                vars.push(var);
                continue;
            }
            let add = |this: &mut Self, name: &str| {
                this.add_var(name, value.dtype, (*layout).clone(), VarKind::Temporary)
            };
            let arrived = match arrival {
                Arrival::Operand | Arrival::InPlace => add(self, name),
                Arrival::Assembled => add(self, &self.part("arrived")),
            };
            let whole = self.program.view(arrived);
            self.copy_into(value, &whole, &mut transposes, &mut copies);
            vars.push(match arrival {
                Arrival::Operand | Arrival::InPlace => arrived,
                Arrival::Assembled => {
                    let var = add(self, name);
                    let labels: Vec<u8> = (0..layout.axes.len() as u8).collect();
                    assemblies.push(VertexGroup {
                        vertex: Vertex::Assemble,
                        output: Operand::new(var, &labels),
                        inputs: SmallVec::from_iter([Operand::new(arrived, &labels)]),
                    });
                    var
                }
            });
        }
        if !transposes.is_empty() {
            self.changing_layout(|this| this.emit_compute(transposes));
        }
        self.emit_exchange(copies);
        if !assemblies.is_empty() {
            self.emit_compute(assemblies);
        }
        vars
    }

    /// Copies a tensor into a view of the same shape.
    pub(crate) fn copy_to_view(&mut self, value: &Value, dst: &View) {
        let mut transposes = Vec::new();
        let mut copies = Vec::new();
        self.copy_into(value, dst, &mut transposes, &mut copies);
        self.changing_layout(|this| {
            if !transposes.is_empty() {
                this.emit_compute(transposes);
            }
            this.emit_exchange(copies);
        });
    }

    fn copy_into(
        &mut self,
        value: &Value,
        target: &View,
        transposes: &mut Vec<VertexGroup>,
        copies: &mut Vec<TileCopy>,
    ) {
        let mut begin = 0;
        for part in &value.parts {
            let extent = part.shape.extents().get(value.axis).copied().unwrap_or(1);
            let dst = if value.parts.len() == 1 {
                target.clone()
            } else {
                let shape = target.shape.slice(value.axis, begin, begin + extent);
                View {
                    var: target.var,
                    shape: shape.expect("parts follow each other along one axis of the target"),
                }
            };
            begin += extent;
            let src = self.with_neighbours_of(part, &dst, transposes);
            copies.push(TileCopy { src, dst });
        }
    }

    /// `part`, transposed on its tiles if `dst` wants other elements next to each other.
    fn with_neighbours_of(
        &mut self,
        part: &View,
        dst: &View,
        transposes: &mut Vec<VertexGroup>,
    ) -> View {
        let layout = self.program.layout_of(part.var).clone();
        let wanted = self
            .program
            .layout_of(dst.var)
            .innermost()
            .and_then(|inner| {
                let axis = dst.shape.axes.iter().position(|digits| {
                    digits.last().is_some_and(|digit| digit.axis == inner.axis)
                })?;
                part.shape.axes[axis].last().map(|digit| digit.axis)
            });
        let (Some(wanted), Some(inner)) = (wanted, layout.innermost()) else {
            return part.clone();
        };
        let scattered = |axis: u8| layout.axes[usize::from(axis)].extent_max() > 1;
        if wanted == inner.axis || !scattered(wanted) || !scattered(inner.axis) {
            return part.clone();
        }
        // Whole blocks, so that the vertex transposes squares of vectors.
        let extent = layout.axes[usize::from(wanted)].extent_max();
        let step = |block: u32| StorageLoop {
            axis: wanted,
            block,
        };
        let others = layout.order.iter().filter(|loop_| loop_.axis != wanted);
        let order: Vec<StorageLoop> = [step(TRANSPOSED_BLOCK.min(extent.next_multiple_of(4)))]
            .into_iter()
            .chain(others.copied())
            .chain([step(1)])
            .collect();
        // Once for all slices of a variable, which lie on different tiles (queries, keys, values).
        let known = transposes.iter().find(|known| {
            known.inputs[0].var == part.var
                && self.program.layout_of(known.output.var).order == order
        });
        let known = known.map(|known| known.output.var);
        let transposed = known.unwrap_or_else(|| {
            let source = self.program.vars[part.var].clone();
            let labels: Vec<u8> = (0..layout.axes.len() as u8).collect();
            let transposed = self.add_var(
                &source.name,
                source.dtype,
                Layout { order, ..layout },
                VarKind::Temporary,
            );
            transposes.push(VertexGroup {
                vertex: Vertex::Copy,
                output: Operand::new(transposed, &labels),
                inputs: SmallVec::from_iter([Operand::new(part.var, &labels)]),
            });
            transposed
        });
        View {
            var: transposed,
            shape: part.shape.clone(),
        }
    }
}
