//! A program as text, for people and for `diff`.
//!
//! One line a layout, variable, stream, buffer and step; the steps of functions and repeats
//! are indented. Layouts are summarised (extent and places of each axis, storage order, first
//! tile, number of copies), so the text can't be read back. Equal programs print equally.
//!
//! ```text
//! layout 3: 1024 in 16 x 4096 in 92, order 1/16 0 1, from tile 0
//! v7: f16 weight on IPU 1, layout 3, `Layer3/FF/1/W`
//! compute IPU 1 matmul Layer3/FF/1: v9[3 0 2] = MatMul { .. }(v7[0 1], v8[1 2])
//! ```

use std::fmt::{self, Display, Formatter, Write};

use crate::layout::Layout;
use crate::program::{Collective, LayoutId, Operand, Program, SourceId, Step, Transfer};
use crate::view::View;

/// The whole program as text.
#[must_use]
pub fn print(program: &Program) -> String {
    let mut out = String::new();
    write_program(&mut out, program).expect("writing to a string doesn't fail");
    out
}

fn write_program(out: &mut String, program: &Program) -> fmt::Result {
    let outlined = if program.outlined { ", outlined" } else { "" };
    let (ipus, replicas) = (program.n_ipus, program.n_replicas);
    writeln!(
        out,
        "program of {ipus} IPUs in {replicas} replicas{outlined}"
    )?;
    for (number, layout) in program.layouts.iter().enumerate() {
        writeln!(out, "{}: {}", LayoutId(number as u32), Summary(layout))?;
    }
    for (id, var) in program.vars.iter() {
        let (dtype, kind) = (format!("{:?}", var.dtype).to_lowercase(), var.kind.name());
        let (ipu, layout, name) = (var.ipu, var.layout, &var.name);
        writeln!(out, "{id}: {dtype} {kind} on {ipu}, {layout}, `{name}`")?;
    }
    for (id, stream) in program.streams.iter() {
        let prefetch = if stream.prefetch { ", prefetched" } else { "" };
        let depth = match stream.buffering_depth {
            1 => String::new(),
            depth => format!(", {depth} buffered"),
        };
        writeln!(out, "{id}: `{}`{prefetch}{depth}", stream.name)?;
    }
    for (id, buffer) in program.remote_buffers.iter() {
        writeln!(out, "{id}: `{}`, {}", buffer.name, buffer.bytes)?;
    }
    for (id, function) in program.functions.iter() {
        writeln!(out, "{id}: `{}`", function.name)?;
        write_steps(out, program, &function.steps, 1)?;
    }
    writeln!(out, "main")?;
    write_steps(out, program, &program.steps, 1)
}

fn write_steps(out: &mut String, program: &Program, steps: &[Step], depth: usize) -> fmt::Result {
    let source = |id: SourceId| {
        let source = program.source(id);
        format!("{} {}", source.kind, source.name)
    };
    for step in steps {
        write!(out, "{:1$}", "", 2 * depth)?;
        match step {
            Step::Compute(set) => {
                write!(out, "compute {} {}:", set.ipu, source(set.source))?;
                for group in &set.vertices {
                    let inputs = List(&group.inputs);
                    write!(
                        out,
                        " {} = {:?}({inputs});",
                        Labelled(&group.output),
                        group.vertex
                    )?;
                }
                writeln!(out)?;
            }
            Step::Exchange(exchange) => {
                write!(
                    out,
                    "exchange {} {}:",
                    exchange.ipu,
                    source(exchange.source)
                )?;
                for copy in &exchange.copies {
                    write!(out, " {} -> {};", Viewed(&copy.src), Viewed(&copy.dst))?;
                }
                writeln!(out)?;
            }
            Step::IpuCopies { source: id, copies } => {
                write!(out, "ipu_copies {}:", source(*id))?;
                for copy in copies {
                    write!(out, " {} -> {};", copy.src, copy.dst)?;
                }
                writeln!(out)?;
            }
            Step::Transfers {
                source: id,
                transfers,
            } => {
                write!(out, "transfers {}:", source(*id))?;
                for transfer in transfers {
                    write!(out, " {};", Moved(transfer))?;
                }
                writeln!(out)?;
            }
            Step::Collective(collective) => write_collective(out, collective, &source)?,
            Step::Repeat { count, body } => {
                writeln!(out, "repeat {count}")?;
                write_steps(out, program, body, depth + 1)?;
            }
            Step::Call(id) => writeln!(out, "call {id}")?,
            Step::Section(id) => writeln!(out, "section {}", program.sections[id.0 as usize])?,
        }
    }
    Ok(())
}

fn write_collective(
    out: &mut String,
    collective: &Collective,
    source: &impl Fn(SourceId) -> String,
) -> fmt::Result {
    write!(out, "{:?} {}:", collective.kind, source(collective.source))?;
    for tensor in &collective.tensors {
        write!(out, " {} -> {};", tensor.src, tensor.dst)?;
    }
    writeln!(out)
}

struct Summary<'a>(&'a Layout);

impl Display for Summary<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Layout {
            axes,
            order,
            copies,
            first_tile,
        } = self.0;
        if axes.is_empty() {
            f.write_str("scalar")?;
        }
        for (axis, split) in axes.iter().enumerate() {
            let times = if axis > 0 { " x " } else { "" };
            write!(f, "{times}{} in {}", split.extent(), split.places.len())?;
        }
        if !order.is_empty() {
            f.write_str(", order")?;
        }
        for step in order {
            match step.block {
                1 => write!(f, " {}", step.axis)?,
                block => write!(f, " {}/{block}", step.axis)?,
            }
        }
        write!(f, ", from tile {first_tile}")?;
        match copies.len() {
            0 | 1 => Ok(()),
            copies => write!(f, ", {copies} copies"),
        }
    }
}

struct Labelled<'a>(&'a Operand);

impl Display for Labelled<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let labels: Vec<String> = self.0.labels.iter().map(|l| l.0.to_string()).collect();
        write!(f, "{}[{}]", self.0.var, labels.join(" "))
    }
}

struct List<'a>(&'a [Operand]);

impl Display for List<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let operands: Vec<String> = self.0.iter().map(|o| Labelled(o).to_string()).collect();
        f.write_str(&operands.join(", "))
    }
}

/// A view: for every axis its digits, `axis*stride:extent` of the variable.
struct Viewed<'a>(&'a View);

impl Display for Viewed<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.var)?;
        for digits in &self.0.shape.axes {
            let digits: Vec<String> = digits
                .iter()
                .map(|digit| format!("{}*{}:{}", digit.axis, digit.stride, digit.extent))
                .collect();
            write!(f, "[{}]", digits.join(" "))?;
        }
        let offsets = &self.0.shape.offsets;
        if offsets.iter().any(|&offset| offset > 0) {
            write!(f, "+{offsets:?}")?;
        }
        Ok(())
    }
}

struct Moved<'a>(&'a Transfer);

impl Display for Moved<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self.0 {
            Transfer::HostRead { stream, var } => write!(f, "{stream} -> {var}"),
            Transfer::HostWrite { stream, var } => write!(f, "{var} -> {stream}"),
            Transfer::RemoteLoad { buffer, var } => write!(f, "{buffer} -> {var}"),
            Transfer::RemoteStore { buffer, var } => write!(f, "{var} -> {buffer}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::IpuId;
    use crate::layout::{AxisSplit, Cut};
    use crate::numerics::DType;
    use crate::program::{ComputeSet, Exchange, TileCopy, VarKind, Variable, VertexGroup};
    use crate::vertex::Vertex;
    use expect_test::expect;
    use smallvec::smallvec;

    #[test]
    fn a_program_reads_line_by_line() {
        let mut program = Program::new(1, 2);
        let source = program.add_source("x", "copy");
        let cut = Cut {
            parts: 4,
            grain: 1,
            tile_stride: 1,
        };
        let layout = program.add_layout(Layout::row_major(vec![AxisSplit::cut(64, &[cut])]));
        let mut var = |name: &str| {
            program.vars.push(Variable {
                name: name.into(),
                dtype: DType::F16,
                ipu: IpuId(0),
                layout,
                kind: VarKind::Activation,
            })
        };
        let (x, y) = (var("x"), var("y"));
        let copy = TileCopy {
            src: program.view(x),
            dst: program.view(y),
        };
        let exchange = Step::Exchange(Exchange {
            source,
            ipu: IpuId(0),
            copies: vec![copy],
        });
        let compute = Step::Compute(ComputeSet {
            source,
            ipu: IpuId(0),
            vertices: vec![VertexGroup {
                vertex: Vertex::Copy,
                output: Operand::new(y, &[0]),
                inputs: smallvec![Operand::new(x, &[0])],
            }],
        });
        program.steps = vec![Step::Repeat {
            count: 3,
            body: vec![exchange, compute],
        }];
        expect![[r#"
            program of 1 IPUs in 2 replicas
            layout 0: 64 in 4, order 0, from tile 0
            v0: f16 activation on IPU 0, layout 0, `x`
            v1: f16 activation on IPU 0, layout 0, `y`
            main
              repeat 3
                exchange IPU 0 copy x: v0[0*1:64] -> v1[0*1:64];
                compute IPU 0 copy x: v1[0] = Copy(v0[0]);
        "#]]
        .assert_eq(&print(&program));
    }
}
