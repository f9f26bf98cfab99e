//! Rules of compute sets: every vertex has the operands that it reads, where it runs.
//!
//! Whether operands lie where their vertex runs depends on layouts and labels only, so each
//! combination is looked at once.

use indexmap::{IndexMap, IndexSet};
use smallvec::SmallVec;

use super::fault::{Checked, Violation, broken};
use super::vertices;
use crate::ids::{Id, TileId};
use crate::layout::AxisSplit;
use crate::program::{ComputeSet, Label, Labels, LayoutId, Operand, Program, VertexGroup};
use crate::threads;

/// Checks a set by itself: all that doesn't depend on where boxes lie.
pub(super) fn check(program: &Program, set: &ComputeSet) -> Result<(), Violation> {
    for group in &set.vertices {
        for operand in operands(group) {
            on_ipu(program, set, operand)?;
            labels(program, operand)?;
        }
        vertices::check(program, group)?;
    }
    races(program, set)
}

fn operands(group: &VertexGroup) -> impl Iterator<Item = &Operand> {
    std::iter::once(&group.output).chain(&group.inputs)
}

fn on_ipu(program: &Program, set: &ComputeSet, operand: &Operand) -> Result<(), Violation> {
    let var = &program.vars[operand.var];
    if var.ipu == set.ipu {
        return Ok(());
    }
    Err(Violation::WrongIpu {
        variable: var.name.clone(),
        expected: set.ipu,
        got: var.ipu,
    })
}

fn labels(program: &Program, operand: &Operand) -> Result<(), Violation> {
    let axes = program.layout_of(operand.var).axes.len();
    let named = operand.labels.iter().enumerate();
    let mut twice =
        named.filter(|&(at, label)| *label != Label::WHOLE && operand.labels[..at].contains(label));
    if operand.labels.len() == axes && twice.next().is_none() {
        return Ok(());
    }
    Err(Violation::Labels {
        variable: program.vars[operand.var].name.clone(),
        axes,
    })
}

/// Vertices of a set run at the same time, so what one group writes no other may touch.
fn races(program: &Program, set: &ComputeSet) -> Result<(), Violation> {
    let mut users: IndexMap<_, (usize, bool)> = IndexMap::new();
    for (number, group) in set.vertices.iter().enumerate() {
        for (position, operand) in operands(group).enumerate() {
            let writes = position == 0;
            let (user, written) = users.entry(operand.var).or_insert((number, writes));
            if *user != number && (writes || *written) {
                let variable = program.vars[operand.var].name.clone();
                return Err(Violation::Race { variable });
            }
            *written |= writes;
        }
    }
    Ok(())
}

/// What decides whether the operands of a vertex lie together: layouts and labels, the output's
/// first.
type Lie = SmallVec<[(LayoutId, Labels); 5]>;

/// All distinct ways in which operands lie, and the first vertex of each.
#[derive(Default)]
pub(super) struct OperandLayouts<'p> {
    first: IndexMap<Lie, (Vec<usize>, super::Here, &'p VertexGroup)>,
}

impl<'p> OperandLayouts<'p> {
    /// Notes the vertices of a set, which are well formed in all else.
    pub(super) fn add(
        &mut self,
        program: &Program,
        set: &'p ComputeSet,
        numbers: &[usize],
        here: super::Here,
    ) {
        for group in &set.vertices {
            let layout = |operand: &Operand| program.vars[operand.var].layout;
            let output = &group.output;
            // Equal layouts and labels hold equal indices.
            let mut inputs = group.inputs.iter();
            let alike = inputs
                .all(|input| layout(input) == layout(output) && input.labels == output.labels);
            if !alike {
                let lie = operands(group).map(|operand| (layout(operand), operand.labels.clone()));
                let entry = self.first.entry(lie.collect());
                entry.or_insert_with(|| (numbers.to_vec(), here, group));
            }
        }
    }

    /// Checks that wherever an output is written all operands have a box, of the same indices of
    /// every label that they share, and whole where the vertex takes them whole.
    pub(super) fn check(&self, program: &Program, n_tiles: u32) -> Checked {
        let lies = self.first.keys().flatten();
        let layouts = lies.map(|&(layout, _)| layout).collect();
        let boxes = Boxes::of(program, layouts, n_tiles);
        let entries: Vec<_> = self.first.iter().collect();
        let checked = threads::map(&entries, |(lie, (numbers, here, group))| {
            boxes.check(program, lie, group).map_err(|violation| {
                let place = here.at(numbers).place(program, here.source);
                broken(place, violation)
            })
        });
        checked.into_iter().collect()
    }
}

/// What every tile holds of every layout, as numbers of what is held.
struct Boxes {
    layouts: IndexMap<LayoutId, OneLayout>,
}

/// No box is on a tile.
const NONE: u32 = u32::MAX;

struct OneLayout {
    /// By tile: the number of its box, or [`NONE`].
    box_on: Vec<u32>,
    /// By box and axis: the number of the indices it holds, equal if they are.
    held: Vec<SmallVec<[u32; 4]>>,
}

impl Boxes {
    fn of(program: &Program, layouts: IndexSet<LayoutId>, n_tiles: u32) -> Self {
        let mut known: IndexSet<Vec<(u32, u32)>> = IndexSet::new();
        let mut numbers = |axis: &AxisSplit| -> Vec<u32> {
            let runs = runs_of_places(axis).into_iter();
            runs.map(|runs| known.insert_full(runs).0 as u32).collect()
        };
        let numbered: Vec<(LayoutId, Vec<Vec<u32>>)> = layouts
            .into_iter()
            .map(|id| {
                (
                    id,
                    program.layouts[id.index()]
                        .axes
                        .iter()
                        .map(&mut numbers)
                        .collect(),
                )
            })
            .collect();
        let layouts = threads::map(&numbered, |(id, axes)| {
            let layout = &program.layouts[id.index()];
            let mut one = OneLayout {
                box_on: vec![NONE; n_tiles as usize],
                held: Vec::new(),
            };
            for (number, (first, places)) in layout.boxes().enumerate() {
                let held = axes
                    .iter()
                    .zip(&places)
                    .map(|(axis, &place)| axis[place as usize]);
                one.held.push(held.collect());
                for tile in layout.copies_of(first) {
                    one.box_on[tile.index()] = number as u32;
                }
            }
            (*id, one)
        });
        Self {
            layouts: layouts.into_iter().collect(),
        }
    }

    fn check(&self, program: &Program, lie: &Lie, group: &VertexGroup) -> Result<(), Violation> {
        let name = |operand: &Operand| program.vars[operand.var].name.clone();
        let output = &self.layouts[&lie[0].0];
        for (tile, &number) in output.box_on.iter().enumerate() {
            if number == NONE {
                continue;
            }
            let mut loops: SmallVec<[(Label, u32); 8]> = SmallVec::new();
            for (operand, (layout, labels)) in operands(group).zip(lie) {
                let layout = &self.layouts[layout];
                let Some(held) = layout.held.get(layout.box_on[tile] as usize) else {
                    return Err(Violation::MissingBox {
                        variable: name(operand),
                        tile: TileId(tile as u32),
                        output: name(&group.output),
                    });
                };
                for (&label, &held) in labels.iter().zip(held) {
                    if label == Label::WHOLE {
                        continue;
                    }
                    match loops.iter().find(|(known, _)| *known == label) {
                        None => loops.push((label, held)),
                        Some(&(_, known)) if known == held => {}
                        Some(_) => {
                            return Err(Violation::Misaligned {
                                variable: name(operand),
                                tile: TileId(tile as u32),
                            });
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// The runs of indices `(begin, end)` of every place, neighbours joined.
fn runs_of_places(axis: &AxisSplit) -> Vec<Vec<(u32, u32)>> {
    let mut out: Vec<Vec<(u32, u32)>> = vec![Vec::new(); axis.places.len()];
    for range in &axis.ranges {
        let runs = &mut out[range.place as usize];
        match runs.last_mut() {
            Some(last) if last.1 == range.begin => last.1 = range.end(),
            _ => runs.push((range.begin, range.end())),
        }
    }
    out
}
