//! Cycles of compute sets: the slowest tile's vertices, worked out once for equal sets.
//!
//! Two groups of vertices cost the same if vertex, labels, layouts and element types
//! are equal, whatever variables they name. Inside a group, tiles with boxes of the
//! same sizes cost the same, so that a vertex law is evaluated once per class of tiles.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use indexmap::IndexSet;
use smallvec::SmallVec;

use super::tiles::{AllTiles, TileClasses};
use super::timeline::ProductFlops;
use crate::cost::amp::AmpTypes;
use crate::cost::vertex::{OperandSize, VertexSizes, cycles};
use crate::layout::Layout;
use crate::numerics::DType;
use crate::program::{ComputeSet, Label, Labels, LayoutId, Operand, Program, VertexGroup};
use crate::spec::TileSpec;
use crate::threads;
use crate::units::Cycles;
use crate::vertex::Vertex;

/// What matters of an operand.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct OperandKey {
    labels: Labels,
    layout: LayoutId,
    dtype: DType,
}

/// What the cost of a group of vertices depends on.
#[derive(Clone, Debug, PartialEq)]
struct GroupKey {
    vertex: Vertex,
    output: OperandKey,
    inputs: SmallVec<[OperandKey; 4]>,
    /// The input that is overwritten.
    in_place: Option<usize>,
}

// A constant that isn't equal to itself (NaN) only makes equal groups count as distinct.
impl Eq for GroupKey {}

impl Hash for GroupKey {
    /// Leaves the vertex out, whose constants have no hash: few vertices share operands.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.output.hash(state);
        self.inputs.hash(state);
        self.in_place.hash(state);
    }
}

impl GroupKey {
    fn of(program: &Program, group: &VertexGroup) -> Self {
        let key = |operand: &Operand| {
            let var = &program.vars[operand.var];
            OperandKey {
                labels: operand.labels.clone(),
                layout: var.layout,
                dtype: var.dtype,
            }
        };
        let output = group.output.var;
        Self {
            vertex: group.vertex.clone(),
            output: key(&group.output),
            inputs: group.inputs.iter().map(key).collect(),
            in_place: group.inputs.iter().position(|input| input.var == output),
        }
    }

    /// Adds the cycles of this group's vertex to every tile that has one.
    fn add_cycles(
        &self,
        program: &Program,
        tiles: &AllTiles,
        spec: &TileSpec,
        sums: &mut [Cycles],
    ) {
        let operands: SmallVec<[(&OperandKey, &Layout, &TileClasses); 5]> = [&self.output]
            .into_iter()
            .chain(&self.inputs)
            .map(|key| (key, program.layout(key.layout), tiles.of(key.layout)))
            .collect();
        let shapes: SmallVec<[Vec<u32>; 5]> = operands
            .iter()
            .map(|(_, layout, _)| layout.shape())
            .collect();
        let mut known: Vec<(SmallVec<[u32; 5]>, Cycles)> = Vec::new();
        let mut last = 0;
        for (tile, sum) in sums.iter_mut().enumerate() {
            if operands[0].2.class(tile).is_none() {
                continue;
            }
            let classes: SmallVec<[u32; 5]> = operands
                .iter()
                .map(|(_, _, boxes)| {
                    let class = boxes.class(tile);
                    class.unwrap_or_else(|| {
                        panic!("tile {tile} lacks an input of {:?}", self.vertex)
                    })
                })
                .collect();
            if known.get(last).is_none_or(|(key, _)| *key != classes) {
                last = known
                    .iter()
                    .position(|(key, _)| *key == classes)
                    .unwrap_or_else(|| {
                        let cost = self.cycles_of(&operands, &shapes, &classes, spec);
                        known.push((classes, cost));
                        known.len() - 1
                    });
            }
            *sum += known[last].1;
        }
    }

    fn cycles_of(
        &self,
        operands: &[(&OperandKey, &Layout, &TileClasses)],
        shapes: &[Vec<u32>],
        classes: &[u32],
        spec: &TileSpec,
    ) -> Cycles {
        let mut sizes = operands.iter().zip(shapes).zip(classes).map(
            |(((key, layout, boxes), shape), &class)| OperandSize {
                labels: &key.labels,
                extents: boxes.extents(class),
                shape,
                order: &layout.order,
                dtype: key.dtype,
            },
        );
        let sizes = VertexSizes {
            output: sizes.next().expect("the output comes first"),
            inputs: sizes.collect(),
            in_place: self.in_place,
        };
        cycles(&self.vertex, &sizes, spec)
    }
}

/// Floating-point operations of a group of vertices that multiply matrices, a multiply-add as two; padding and
/// copies of operands not counted.
pub(super) fn flops(program: &Program, group: &VertexGroup) -> ProductFlops {
    let Vertex::MatMul { .. } = group.vertex else {
        return ProductFlops::default();
    };
    let dtype = |operand: &Operand| program.vars[operand.var].dtype;
    let operand = dtype(&group.inputs[0]);
    // Vertices without the matrix unit may have types that it hasn't.
    let types = AmpTypes::of(operand, dtype(&group.output)).unwrap_or(match operand {
        DType::F16 => AmpTypes::F16F16,
        DType::F32 | DType::U32 => AmpTypes::F32F32,
    });
    // Every label that an input has is one loop of the product.
    let mut loops: BTreeMap<Label, u64> = BTreeMap::new();
    for input in &group.inputs {
        let shape = program.shape_of(input.var);
        loops.extend(
            input
                .labels
                .iter()
                .copied()
                .zip(shape.into_iter().map(u64::from)),
        );
    }
    ProductFlops::of(types, 2 * u128::from(loops.values().product::<u64>()))
}

/// The distinct compute sets of a program, as lists of distinct groups.
#[derive(Clone, Debug, Default)]
pub(super) struct ComputeSets {
    groups: IndexSet<GroupKey>,
    sets: IndexSet<Vec<u32>>,
}

impl ComputeSets {
    /// The number of the set that costs what `set` costs.
    pub(super) fn add(&mut self, program: &Program, set: &ComputeSet) -> usize {
        let groups = set
            .vertices
            .iter()
            .map(|group| self.groups.insert_full(GroupKey::of(program, group)).0 as u32)
            .collect();
        self.sets.insert_full(groups).0
    }

    /// Cycles of the slowest tile of every set, by its number; dispatch not included.
    pub(super) fn cycles(
        &self,
        program: &Program,
        tiles: &AllTiles,
        spec: &TileSpec,
    ) -> Vec<Cycles> {
        let sets: Vec<&Vec<u32>> = self.sets.iter().collect();
        threads::map(&sets, |set| {
            let mut sums = vec![Cycles::ZERO; spec.tiles_per_ipu as usize];
            for &group in *set {
                self.groups[group as usize].add_cycles(program, tiles, spec, &mut sums);
            }
            sums.into_iter().max().unwrap_or(Cycles::ZERO)
        })
    }
}
