//! A program as text, for people and for `diff`.
//!
//! One line a variable, stream, buffer and step; the steps of functions and repeats are
//! indented. Everything goes by its name ([`Names`]), so that a program that differs in one
//! place differs in few lines. A variable's layout is summarised (extent and places of each
//! axis, storage order, first tile, number of copies), so the text can't be read back. Equal
//! programs print equally.
//!
//! ```text
//! Layer3/FF/1/W: f16 weight on IPU 1, 1024 in 16 x 4096 in 92, order 1/16 0 1, from tile 0
//! compute IPU 1 matmul Layer3/FF/1: Layer3/FF/1:matmul[0 2] = MatMul { .. }(Layer3/FF/1/operand:matmul[0 1], Layer3/FF/1/W[1 2]);
//! ipu_copies ipu_copy pipeline: IPU 1: Layer3/FF/Norm:layer_norm -> IPU 2: Layer3/FF/Norm;
//! ```

mod names;

use std::fmt::{self, Display, Formatter, Write};

pub use self::names::Names;
use crate::ids::IpuId;
use crate::layout::Layout;
use crate::program::{
    Collective, DEPTH_MAX, Operand, Program, SourceId, Step, Transfer, VarId, nested,
};
use crate::view::View;

/// The whole program as text.
#[must_use]
pub fn print(program: &Program) -> String {
    let names = Names::of(program);
    let text = Text { program, names };
    let mut out = String::new();
    text.write_program(&mut out)
        .expect("writing to a string doesn't fail");
    out
}

struct Text<'a> {
    program: &'a Program,
    names: Names,
}

impl Text<'_> {
    fn write_program(&self, out: &mut String) -> fmt::Result {
        let program = self.program;
        let outlined = if program.outlined { ", outlined" } else { "" };
        let started = match program.started_by_host {
            true => ", started by a host",
            false => "",
        };
        let (ipus, replicas) = (program.n_ipus, program.n_replicas);
        writeln!(
            out,
            "program of {ipus} IPUs in {replicas} replicas{outlined}{started}"
        )?;
        for (id, var) in program.vars.iter() {
            let (dtype, kind) = (format!("{:?}", var.dtype).to_lowercase(), var.kind.name());
            let (ipu, layout) = (var.ipu, Summary(program.layout(var.layout)));
            let name = &self.names.vars[id];
            writeln!(out, "{name}: {dtype} {kind} on {ipu}, {layout}")?;
        }
        for (id, stream) in program.streams.iter() {
            let prefetch = if stream.prefetch { ", prefetched" } else { "" };
            let depth = match stream.buffering_depth {
                1 => String::new(),
                depth => format!(", {depth} buffered"),
            };
            writeln!(out, "stream `{}`{prefetch}{depth}", self.names.streams[id])?;
        }
        for (id, buffer) in program.remote_buffers.iter() {
            let name = &self.names.remote_buffers[id];
            writeln!(out, "buffer `{name}`, {}", buffer.bytes)?;
        }
        for (id, function) in program.functions.iter() {
            writeln!(out, "function `{}`", self.names.functions[id])?;
            self.write_steps(out, &function.steps)?;
        }
        writeln!(out, "main")?;
        self.write_steps(out, &program.steps)
    }

    fn write_steps(&self, out: &mut String, steps: &[Step]) -> fmt::Result {
        for (depth, step) in nested(steps) {
            // What is deeper is refused wherever it could run, and takes no room here either.
            let shown = depth.min(DEPTH_MAX as usize);
            write!(out, "{:1$}", "", 2 * (shown + 1))?;
            match step {
                Step::Compute(set) => {
                    let (ipu, source) = (set.ipu, self.source(set.source));
                    write!(out, "compute {ipu} {source}:")?;
                    for group in &set.vertices {
                        let inputs = group.inputs.iter().map(|input| self.operand(input, ipu));
                        let inputs: Vec<String> = inputs.collect();
                        let output = self.operand(&group.output, ipu);
                        let (vertex, inputs) = (&group.vertex, inputs.join(", "));
                        write!(out, " {output} = {vertex:?}({inputs});")?;
                    }
                    writeln!(out)?;
                }
                Step::Exchange(exchange) => {
                    let (ipu, source) = (exchange.ipu, self.source(exchange.source));
                    write!(out, "exchange {ipu} {source}:")?;
                    for copy in &exchange.copies {
                        let (src, dst) = (self.view(&copy.src, ipu), self.view(&copy.dst, ipu));
                        write!(out, " {src} -> {dst};")?;
                    }
                    writeln!(out)?;
                }
                Step::IpuCopies { source, copies } => {
                    let copies = copies.iter().map(|copy| (copy.src, copy.dst));
                    self.write_moves(out, "ipu_copies", *source, copies)?;
                }
                Step::Transfers { source, transfers } => {
                    write!(out, "transfers {}:", self.source(*source))?;
                    for transfer in transfers {
                        write!(out, " {};", self.transfer(transfer))?;
                    }
                    writeln!(out)?;
                }
                Step::Collective(collective) => self.write_collective(out, collective)?,
                Step::Repeat { count, .. } => writeln!(out, "repeat {count}")?,
                Step::Call(id) => writeln!(out, "call `{}`", self.names.functions[*id])?,
                Step::Section(id) => {
                    writeln!(out, "section {}", self.program.sections[id.0 as usize])?;
                }
            }
        }
        Ok(())
    }

    fn write_collective(&self, out: &mut String, collective: &Collective) -> fmt::Result {
        let tensors = collective.tensors.iter();
        let moves = tensors.map(|tensor| (tensor.src, tensor.dst));
        let kind = format!("{:?}", collective.kind);
        self.write_moves(out, &kind, collective.source, moves)
    }

    fn write_moves(
        &self,
        out: &mut String,
        what: &str,
        source: SourceId,
        moves: impl Iterator<Item = (VarId, VarId)>,
    ) -> fmt::Result {
        write!(out, "{what} {}:", self.source(source))?;
        for (src, dst) in moves {
            write!(out, " {} -> {};", self.on_ipu(src), self.on_ipu(dst))?;
        }
        writeln!(out)
    }

    fn source(&self, id: SourceId) -> String {
        let source = self.program.source(id);
        format!("{} {}", source.kind, source.name)
    }

    /// A variable in a step that may concern several IPUs.
    fn on_ipu(&self, var: VarId) -> String {
        format!("{}: {}", self.program.vars[var].ipu, self.names.vars[var])
    }

    /// A variable in a step of one IPU.
    fn var(&self, var: VarId, step_on: IpuId) -> String {
        if self.program.vars[var].ipu == step_on {
            self.names.vars[var].clone()
        } else {
            self.on_ipu(var)
        }
    }

    fn operand(&self, operand: &Operand, step_on: IpuId) -> String {
        let labels: Vec<String> = operand.labels.iter().map(|l| l.0.to_string()).collect();
        format!("{}[{}]", self.var(operand.var, step_on), labels.join(" "))
    }

    /// A view: for every axis its digits, `axis*stride:extent` of the variable.
    fn view(&self, view: &View, step_on: IpuId) -> String {
        let mut out = self.var(view.var, step_on);
        for digits in &view.shape.axes {
            let digits: Vec<String> = digits
                .iter()
                .map(|digit| format!("{}*{}:{}", digit.axis, digit.stride, digit.extent))
                .collect();
            out += &format!("[{}]", digits.join(" "));
        }
        let offsets = &view.shape.offsets;
        if offsets.iter().any(|&offset| offset > 0) {
            out += &format!("+{offsets:?}");
        }
        out
    }

    fn transfer(&self, transfer: &Transfer) -> String {
        let stream = |id| format!("stream `{}`", self.names.streams[id]);
        let buffer = |id| format!("buffer `{}`", self.names.remote_buffers[id]);
        let var = self.on_ipu(transfer.var());
        match *transfer {
            Transfer::HostRead { stream: id, .. } => format!("{} -> {var}", stream(id)),
            Transfer::HostWrite { stream: id, .. } => format!("{var} -> {}", stream(id)),
            Transfer::RemoteLoad { buffer: id, .. } => format!("{} -> {var}", buffer(id)),
            Transfer::RemoteStore { buffer: id, .. } => format!("{var} -> {}", buffer(id)),
        }
    }
}

/// A layout in a few words.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::IpuId;
    use crate::layout::{AxisSplit, Cut};
    use crate::numerics::DType;
    use crate::program::{
        ComputeSet, Exchange, Function, IpuCopy, RemoteBuffer, TileCopy, VarKind, Variable,
        VertexGroup,
    };
    use crate::units::Bytes;
    use crate::vertex::Vertex;
    use expect_test::expect;
    use smallvec::smallvec;

    #[test]
    fn a_program_reads_line_by_line() {
        let mut program = Program::new(2, 2);
        let source = program.add_source("x", "double");
        let pipeline = program.add_source("pipeline", "ipu_copy");
        let layout =
            program.add_layout(Layout::row_major(vec![AxisSplit::cut(64, &[Cut::even(4)])]));
        let mut var = |ipu: u32, name: &str, kind: VarKind| {
            program.vars.push(Variable {
                name: name.into(),
                dtype: DType::F16,
                ipu: IpuId(ipu),
                layout,
                kind,
            })
        };
        let x = var(0, "x", VarKind::Weight);
        let (operand, doubled) = (
            var(0, "x", VarKind::Temporary),
            var(0, "x", VarKind::Activation),
        );
        let next = var(1, "x", VarKind::CopyBuffer);
        let buffer = program.remote_buffers.push(RemoteBuffer {
            name: "x".into(),
            bytes: Bytes(128),
        });
        let copy = TileCopy {
            src: program.view(x),
            dst: program.view(operand),
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
                output: Operand::new(doubled, &[0]),
                inputs: smallvec![Operand::new(operand, &[0])],
            }],
        });
        let function = program.functions.push(Function {
            name: "stage 0".into(),
            steps: vec![exchange, compute],
        });
        let copies = vec![IpuCopy {
            src: doubled,
            dst: next,
        }];
        let over = Step::IpuCopies {
            source: pipeline,
            copies,
        };
        let store = Step::Transfers {
            source,
            transfers: vec![Transfer::RemoteStore { buffer, var: next }],
        };
        program.steps = vec![
            Step::Repeat {
                count: 3,
                body: vec![Step::Call(function), over],
            },
            store,
        ];
        expect![[r#"
            program of 2 IPUs in 2 replicas
            x: f16 weight on IPU 0, 64 in 4, order 0, from tile 0
            x:double: f16 temporary on IPU 0, 64 in 4, order 0, from tile 0
            x:double.2: f16 activation on IPU 0, 64 in 4, order 0, from tile 0
            x: f16 copy_buffer on IPU 1, 64 in 4, order 0, from tile 0
            buffer `x`, 128 B
            function `stage 0`
              exchange IPU 0 double x: x[0*1:64] -> x:double[0*1:64];
              compute IPU 0 double x: x:double.2[0] = Copy(x:double[0]);
            main
              repeat 3
                call `stage 0`
                ipu_copies ipu_copy pipeline: IPU 0: x:double.2 -> IPU 1: x;
              transfers double x: IPU 1: x -> buffer `x`;
        "#]]
        .assert_eq(&print(&program));
    }
}
