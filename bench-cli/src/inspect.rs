//! What a run leaves behind for those who want to watch the compiler: graphs after each pass,
//! the program, and memory over tiles and time.

mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use ipu_sim::ids::{IpuId, TileId};
use ipu_sim::program::Program;
use ipu_sim::spec::MachineSpec;
use ipu_sim::weigh::{
    self, IpuMemoryUsage, LiveBytes, LiveKind, LivePoint, MemoryUsage, Region, TileVariable,
    UNMODELLED_CATEGORIES, UnmodelledCategory,
};
use popart_graph::ir::Graph;
use schemars::JsonSchema;
use serde::Serialize;

use crate::files::{FolderLock, PartialFile};
use crate::{Error, Result, files, report};

/// Version of the memory report's form; it rises with every change that breaks a reader.
const MEMORY_SCHEMA: u32 = 3;

/// Where to leave what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspect {
    /// Folder for the graphs.
    pub ir: Option<PathBuf>,
    /// File for the program.
    pub program: Option<PathBuf>,
    /// File for the memory report, `.json`, or `.csv` with two more beside it.
    pub memory: Option<PathBuf>,
}

impl Inspect {
    /// Makes sure before the work that graphs can be written, makes their folder, and takes the
    /// right to fill it; that [files](Self::files) can be written is to be checked with those of
    /// others.
    ///
    /// # Errors
    ///
    /// A folder that can't be written, or that another run is filling.
    pub fn check(&self) -> Result<Option<FolderLock>> {
        let Some(folder) = &self.ir else {
            return Ok(None);
        };
        // Of a folder without a name, the system has nothing to say.
        let created = match folder.as_os_str().is_empty() {
            true => Err(std::io::ErrorKind::NotFound.into()),
            false => fs::create_dir_all(folder),
        };
        created.map_err(|source| Error::File {
            action: "create",
            path: folder.clone(),
            source,
        })?;
        let lock = FolderLock::take(folder)?;
        files::check_writable(&folder.join("00-model.ir"))?;
        Ok(Some(lock))
    }

    /// Makes sure that none of `others`, which a run reads or writes, is named as a graph is in the
    /// folder of graphs, where it would be replaced.
    ///
    /// # Errors
    ///
    /// [`Error::NamedAsGraph`].
    pub fn check_apart<'a>(&self, others: impl IntoIterator<Item = &'a Path>) -> Result<()> {
        let Some(folder) = &self.ir else {
            return Ok(());
        };
        let mut others = others.into_iter();
        let lost =
            others.find(|path| files::is_in(folder, path).is_some_and(|name| is_graph(&name)));
        match lost {
            Some(path) => Err(Error::NamedAsGraph { path: path.into() }),
            None => Ok(()),
        }
    }

    /// The files, but for those in the folder of graphs.
    ///
    /// # Errors
    ///
    /// A memory report of unknown form.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files: Vec<PathBuf> = self.program.iter().cloned().collect();
        if let Some(path) = &self.memory {
            match Form::of(path)? {
                Form::Json => files.push(path.clone()),
                Form::Csv => files.extend(tables::files(path)),
            }
        }
        Ok(files)
    }

    /// Takes graphs as they come and writes them.
    #[must_use]
    pub fn graphs(&self) -> Graphs<'_> {
        Graphs {
            folder: self.ir.as_deref(),
            unfinished: Vec::new(),
            failed: None,
        }
    }

    /// Writes the program, if asked for.
    ///
    /// # Errors
    ///
    /// A file that can't be written.
    pub fn write_program(&self, program: &Program) -> Result<()> {
        match &self.program {
            Some(path) => files::write(path, &ipu_sim::text::print(program)),
            None => Ok(()),
        }
    }

    /// Writes the memory report, if asked for.
    ///
    /// # Errors
    ///
    /// A file that can't be written.
    pub fn write_memory(
        &self,
        program: &Program,
        machine: &MachineSpec,
        weight: &MemoryUsage,
    ) -> Result<()> {
        let Some(path) = &self.memory else {
            return Ok(());
        };
        match Form::of(path)? {
            Form::Json => {
                let memory = MemoryReport::new(program, machine, weight);
                files::write(path, &report::json::compact_text(&memory))
            }
            Form::Csv => {
                let texts = tables::texts(program, machine, weight);
                let mut files = tables::files(path).into_iter().zip(texts);
                files.try_for_each(|(path, text)| files::write(&path, &text))
            }
        }
    }
}

/// Writes one file for each graph that it sees: `00-model.ir`, `01-pipeline_stages.ir`, ...
/// They replace those of an earlier run, which may have had more, when all are whole.
pub struct Graphs<'a> {
    folder: Option<&'a Path>,
    unfinished: Vec<(OsString, PartialFile)>,
    failed: Option<Error>,
}

impl Graphs<'_> {
    /// Takes the graph that `pass` made.
    pub fn see(&mut self, pass: &str, graph: &Graph) {
        let Some(folder) = self.folder.filter(|_| self.failed.is_none()) else {
            return;
        };
        let name = format!("{:02}-{pass}.ir", self.unfinished.len());
        match files::unfinished(&folder.join(&name), &popart_graph::text::print(graph)) {
            Ok(file) => self.unfinished.push((name.into(), file)),
            Err(error) => self.failed = Some(error),
        }
    }

    /// Gives all files their names, and removes those of an earlier run.
    ///
    /// # Errors
    ///
    /// The first file that couldn't be written or removed.
    pub fn finish(self) -> Result<()> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let (names, files): (BTreeSet<OsString>, Vec<PartialFile>) =
            self.unfinished.into_iter().unzip();
        files::finish_all(files)?;
        match self.folder {
            Some(folder) => remove_graphs(folder, &names),
            None => Ok(()),
        }
    }
}

/// Removes the files of a folder that are named as [`Graphs`] names them, but for those to `keep`.
fn remove_graphs(folder: &Path, keep: &BTreeSet<OsString>) -> Result<()> {
    let failed = |action, path: &Path, source| Error::File {
        action,
        path: path.to_path_buf(),
        source,
    };
    let entries = fs::read_dir(folder).map_err(|error| failed("read", folder, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| failed("read", folder, error))?;
        let is_file = entry.file_type().is_ok_and(|found| found.is_file());
        let name = entry.file_name();
        if is_file && !keep.contains(&name) && name.to_str().is_some_and(is_graph) {
            let path = entry.path();
            fs::remove_file(&path).map_err(|error| failed("remove", &path, error))?;
        }
    }
    Ok(())
}

/// Whether that is a name as [`Graphs`] gives it: two digits, a hyphen, a pass, `.ir`.
fn is_graph(name: &str) -> bool {
    let (Some((number, rest)), true) = (name.split_once('-'), name.ends_with(".ir")) else {
        return false;
    };
    number.len() == 2 && number.bytes().all(|byte| byte.is_ascii_digit()) && rest != ".ir"
}

#[derive(Clone, Copy)]
enum Form {
    Json,
    Csv,
}

impl Form {
    fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => Ok(Self::Json),
            Some("csv") => Ok(Self::Csv),
            _ => Err(Error::OutOfRange {
                option: "--memory-report",
                expected: "a file name that ends in .json or .csv".into(),
                found: path.display().to_string(),
            }),
        }
    }
}

/// Memory of all tiles, and of the fullest one over time.
/// The content of `--memory-report` as JSON.
#[derive(Serialize, JsonSchema)]
pub struct MemoryReport {
    schema_version: u32,
    available_bytes: u64,
    /// Categories of Poplar's profile that have no bytes here.
    unweighed: Vec<UnweighedReport>,
    ipus: Vec<IpuReport>,
}

#[derive(Serialize, JsonSchema)]
struct UnweighedReport {
    poplar: &'static str,
    reason: &'static str,
}

#[derive(Serialize, JsonSchema)]
struct IpuReport {
    ipu: u32,
    /// Bytes of every tile at its fullest moment.
    tiles: Vec<u64>,
    /// Of these, what is there during the whole run: lasting variables, code, stacks.
    always_live: Vec<u64>,
    /// The rest: variables that live at the tile's fullest moment. Their kinds are categories.
    not_always_live: Vec<u64>,
    /// Bytes by category, then by tile.
    categories: Vec<CategoryReport>,
    /// What must be in one region of a tile's memory, where most of it must.
    regions: Vec<RegionReport>,
    max_tile: u32,
    /// The steps, outermost first, at which the fullest tile is fullest.
    fullest_at: Vec<String>,
    /// The largest variables there and then.
    largest: Vec<TileVariable>,
    /// What doesn't always live, step by step.
    live: Vec<PointReport>,
}

#[derive(Serialize, JsonSchema)]
struct RegionReport {
    /// `executable`: code. `interleaved`: coefficients of 128-bit loads, and the loader.
    region: &'static str,
    /// What a tile has of it.
    available_bytes: u64,
    max_tile: u32,
    max_tile_bytes: u64,
}

#[derive(Serialize, JsonSchema)]
struct CategoryReport {
    category: String,
    /// The category of Poplar's profile that it belongs to, if one does.
    poplar: Option<&'static str>,
    tiles: Vec<u64>,
}

#[derive(Serialize, JsonSchema)]
struct PointReport {
    step: String,
    ipu_bytes: u64,
    /// Of these, by kind: that of a category without its `not_always_live.`. None stands for 0.
    ipu_bytes_by_kind: BTreeMap<&'static str, u64>,
    max_tile_bytes: u64,
    /// Of these, by kind as above.
    max_tile_bytes_by_kind: BTreeMap<&'static str, u64>,
}

impl MemoryReport {
    fn new(program: &Program, machine: &MachineSpec, weight: &MemoryUsage) -> Self {
        let curves = curves(program, machine, weight);
        let ipus = weight.ipus.iter().zip(curves).map(|((ipu, found), curve)| {
            let bytes = |tiles: &[ipu_sim::units::Bytes]| tiles.iter().map(|b| b.0).collect();
            let categories = found.categories.iter();
            let (always_live, not_always_live) = split(found);
            IpuReport {
                ipu: ipu.0,
                tiles: bytes(&found.tiles),
                always_live,
                not_always_live,
                categories: categories
                    .map(|(category, tiles)| CategoryReport {
                        category: category.name(),
                        poplar: category.poplar(),
                        tiles: bytes(tiles),
                    })
                    .collect(),
                regions: regions(weight, found),
                max_tile: found.max_tile.0,
                fullest_at: found.fullest_at.iter().map(ToString::to_string).collect(),
                largest: found.largest.clone(),
                live: curve.iter().map(point).collect(),
            }
        });
        Self {
            schema_version: MEMORY_SCHEMA,
            available_bytes: weight.available.0,
            unweighed: UNMODELLED_CATEGORIES
                .iter()
                .map(|&UnmodelledCategory { poplar, reason }| UnweighedReport { poplar, reason })
                .collect(),
            ipus: ipus.collect(),
        }
    }
}

fn regions(weight: &MemoryUsage, found: &IpuMemoryUsage) -> Vec<RegionReport> {
    let regions = [
        ("executable", Region::Executable),
        ("interleaved", Region::Interleaved),
    ];
    let report = |(name, region)| {
        let (tile, bytes) = found.fullest(region);
        RegionReport {
            region: name,
            available_bytes: weight.size(region).0,
            max_tile: tile.0,
            max_tile_bytes: bytes.0,
        }
    };
    regions.map(report).into()
}

/// Bytes of every tile that are there always, and those of its fullest moment.
fn split(found: &IpuMemoryUsage) -> (Vec<u64>, Vec<u64>) {
    let passing = found.not_always_live().into_iter();
    let passing: Vec<u64> = passing.map(|bytes| bytes.0).collect();
    let lasting = found.tiles.iter().zip(&passing);
    (
        lasting.map(|(all, passing)| all.0 - passing).collect(),
        passing,
    )
}

fn point(point: &LivePoint) -> PointReport {
    PointReport {
        step: point.step.to_string(),
        ipu_bytes: point.on_ipu.total().0,
        ipu_bytes_by_kind: by_kind(&point.on_ipu),
        max_tile_bytes: point.on_tile.total().0,
        max_tile_bytes_by_kind: by_kind(&point.on_tile),
    }
}

fn by_kind(bytes: &LiveBytes) -> BTreeMap<&'static str, u64> {
    LiveKind::ALL
        .into_iter()
        .map(|kind| (kind.name(), bytes.on(kind).0))
        .filter(|&(_, bytes)| bytes > 0)
        .collect()
}

/// Memory over time on every IPU, and on the fullest tile of each.
fn curves(program: &Program, machine: &MachineSpec, weight: &MemoryUsage) -> Vec<Vec<LivePoint>> {
    let fullest = |(ipu, found): (IpuId, &IpuMemoryUsage)| (ipu, found.max_tile);
    let tiles: Vec<(IpuId, TileId)> = weight.ipus.iter().map(fullest).collect();
    weigh::live_curves(program, machine, &tiles)
}
