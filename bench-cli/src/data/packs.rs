//! Files of packs: made of files of records, sized and counted.
//!
//! Names of files are the original's: one for each copy of the records (`duplication_0`), in the
//! form of v2.1 and v2.2 one for each strategy and so many packs (`strategy_64_64_part_0`).

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use bert_model::data::{
    NamedPack, Pack, PackForm, PackLayout, Packing, PackingRecipe, Record, RecordLayout,
    pack_records,
};
use indicatif::ProgressBar;

use super::{
    DataError, RECORDS_BYTES_MAX, Replace, cannot_read, cannot_write, check_outputs, inspect,
    matching, recipe_error,
};
use crate::files::{self, PartialFile};
use crate::{Error, Result};

/// Packs of one file in the form of v2.1 and v2.2 at the most.
const PACKS_OF_A_PART: usize = 50_000;

/// Request to pack records.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Patterns of files of records, separated by commas.
    pub input_files: String,
    /// Folder of the files to write.
    pub output: PathBuf,
    /// How packs are made.
    pub recipe: PackingRecipe,
    /// Copies of the text that the records hold; each is packed alone.
    pub copies: u32,
    /// Whether files may be replaced.
    pub replace: Replace,
}

/// Counts of records and of the packs that were made of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackingCounts {
    /// Records of all files.
    pub records: u64,
    /// Records behind those of the last whole copy, which are not read.
    pub unread: u64,
    /// Records that stand in packs.
    pub packed: u64,
    /// Records that no strategy wanted.
    pub dropped: u64,
    /// Records of packs that had too many masked words.
    pub crowded: u64,
    /// Padding sequences in packs.
    pub padding: u64,
    /// Files with the packs in each.
    pub files: Vec<(PathBuf, u64)>,
}

/// Packs the records, a step of `bar` for each copy.
///
/// # Errors
///
/// Files that can't be read or written; records that can't be packed; copies in a form without;
/// records without a pack, of which nothing is written.
pub fn make(request: &Request, bar: &ProgressBar) -> Result<PackingCounts> {
    request.recipe.check().map_err(recipe_error)?;
    let layout = request.recipe.layout;
    let inputs = matching(&request.input_files)?;
    if layout.form == PackForm::Slots && request.copies != 1 {
        return Err(DataError::CopiesOfStrategies(request.copies).into());
    }
    let of_record = RecordLayout {
        sequence_length: layout.sequence_length,
        mask_tokens: layout.mask_tokens,
    };
    let mut reader = RecordReader::new(&inputs, of_record)?;
    let records = reader.records;
    let of_a_copy = records / u64::from(request.copies.max(1));
    if request.copies == 0 || (of_a_copy == 0 && records > 0) {
        return Err(DataError::FewRecords {
            copies: request.copies,
            records,
        }
        .into());
    }
    let bytes = of_a_copy.saturating_mul(of_record.bytes() as u64);
    if bytes > RECORDS_BYTES_MAX {
        return Err(DataError::LargeCopy {
            option: "--unpacked-dataset-duplication-factor",
            copies: request.copies,
            bytes,
            most: RECORDS_BYTES_MAX,
        }
        .into());
    }
    fs::create_dir_all(&request.output).map_err(|source| Error::File {
        action: "create",
        path: request.output.clone(),
        source,
    })?;
    // Strategies are known by their packs only, copies before anything is read.
    let of_copy = |copy: u32| request.output.join(format!("duplication_{copy}"));
    if layout.form == PackForm::Slices {
        let paths: Vec<PathBuf> = (0..request.copies).map(of_copy).collect();
        check_outputs(&paths, &inputs, request.replace)?;
    }
    let mut counts = PackingCounts {
        records,
        unread: records - of_a_copy * u64::from(request.copies),
        ..PackingCounts::default()
    };
    bar.set_length(request.copies.into());
    // Copies without a pack, whose files stand beside those of others only.
    let mut empty = Vec::new();
    for copy in 0..request.copies {
        let records = reader.take(of_a_copy)?;
        let packing = pack_records(&records, &request.recipe);
        let packing = packing.map_err(recipe_error)?;
        counts.add(&packing);
        let files = match layout.form {
            PackForm::Slices => BTreeMap::from([(of_copy(copy), packing.packs)]),
            PackForm::Slots => {
                let files = by_strategy(&request.output, packing.packs);
                let paths: Vec<PathBuf> = files.keys().cloned().collect();
                check_outputs(&paths, &inputs, request.replace)?;
                files
            }
        };
        match counts.packed {
            0 => empty.extend(files),
            _ => {
                for (path, packs) in empty.drain(..).chain(files) {
                    write_packs(&path, &packs)?;
                    counts.files.push((path, packs.len() as u64));
                }
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if counts.packed == 0 {
        let records = counts.records;
        return Err(DataError::NoPacks { records }.into());
    }
    Ok(counts)
}

impl PackingCounts {
    fn add(&mut self, packing: &Packing) {
        let packs = packing.packs.iter();
        self.packed += packs.map(|pack| pack.records.len() as u64).sum::<u64>();
        self.dropped += packing.dropped;
        self.crowded += packing.crowded;
        self.padding += packing.padding;
    }

    /// Packs of all files.
    #[must_use]
    pub fn packs(&self) -> u64 {
        self.files.iter().map(|(_, packs)| packs).sum()
    }
}

/// The records of files, one file behind the other.
struct RecordReader<'a> {
    layout: RecordLayout,
    /// Records of all files.
    records: u64,
    /// Files that are still to be read, with the records in each.
    files: std::vec::IntoIter<(&'a Path, u64)>,
    /// The file that is being read, with the records that are left in it.
    open: Option<(&'a Path, u64, BufReader<fs::File>)>,
}

impl<'a> RecordReader<'a> {
    fn new(files: &'a [PathBuf], layout: RecordLayout) -> Result<Self> {
        let counts = files.iter().map(|path| {
            let count = inspect::count(path, layout)?;
            Ok((path.as_path(), count))
        });
        let counts = counts.collect::<Result<Vec<_>>>()?;
        let records = counts.iter().map(|(_, count)| count);
        Ok(Self {
            layout,
            records: records.fold(0, |sum, count| sum.saturating_add(*count)),
            files: counts.into_iter(),
            open: None,
        })
    }

    /// The next records. The first that is none of its form ends the reading.
    fn take(&mut self, count: u64) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        let mut bytes = match count {
            0 => Vec::new(),
            _ => vec![0; self.layout.bytes()],
        };
        for place in 0..count as usize {
            let path = self.read(&mut bytes)?;
            let record = Record::from_bytes(self.layout, &bytes);
            let record = record.map_err(|error| super::data_error(path, error))?;
            if let Some(fault) = record.fault() {
                return Err(recipe_error(bert_model::data::DataError::Record {
                    place,
                    fault,
                }));
            }
            records.push(record);
        }
        Ok(records)
    }

    /// Reads the next record, of which there must be one. Gives the file that it is of.
    fn read(&mut self, bytes: &mut [u8]) -> Result<&'a Path> {
        loop {
            if let Some((path, left, file)) = &mut self.open
                && *left > 0
            {
                *left -= 1;
                let read = file.read_exact(bytes);
                read.map_err(|source| cannot_read(path, source))?;
                return Ok(path);
            }
            let (path, count) = self.files.next().expect("copies have no more than all");
            let file = files::open(path).map_err(|source| cannot_read(path, source))?;
            self.open = Some((path, count, BufReader::new(file)));
        }
    }
}

/// Packs by the file that they go to.
fn by_strategy(folder: &Path, packs: Vec<NamedPack>) -> BTreeMap<PathBuf, Vec<NamedPack>> {
    let mut strategies: BTreeMap<Vec<u32>, Vec<NamedPack>> = BTreeMap::new();
    for pack in packs {
        let same = strategies.entry(pack.strategy.clone()).or_default();
        same.push(pack);
    }
    let mut files = BTreeMap::new();
    for (strategy, packs) in strategies {
        let lengths: Vec<String> = strategy.iter().map(u32::to_string).collect();
        for (part, packs) in packs.chunks(PACKS_OF_A_PART).enumerate() {
            let name = format!("strategy_{}_part_{part}", lengths.join("_"));
            files.insert(folder.join(name), packs.to_vec());
        }
    }
    files
}

fn write_packs(path: &Path, packs: &[NamedPack]) -> Result<()> {
    let mut file = PartialFile::create(path)?;
    let mut bytes = Vec::new();
    for each in packs {
        bytes.clear();
        each.pack.write(&mut bytes);
        let written = file.write_all(&bytes);
        written.map_err(|source| cannot_write(path, source))?;
    }
    file.finish()
}

/// The layout of a file of packs: the one given, or the same in the other form where only that has
/// a size that the file is a multiple of.
///
/// # Errors
///
/// A file that can't be read; [`DataError::MisalignedPacks`] if it ends within a pack of both forms.
pub fn layout_of(path: &Path, layout: PackLayout) -> Result<PackLayout> {
    let bytes = inspect::size(path)?;
    let other = PackLayout {
        form: match layout.form {
            PackForm::Slices => PackForm::Slots,
            PackForm::Slots => PackForm::Slices,
        },
        ..layout
    };
    let found = [layout, other]
        .into_iter()
        .find(|layout| layout.packs_in(bytes).is_ok());
    found.ok_or_else(|| {
        DataError::MisalignedPacks {
            path: path.into(),
            layout: PackLayout {
                form: PackForm::Slices,
                ..layout
            },
            bytes,
        }
        .into()
    })
}

/// Packs of a file, and the sequences in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackCount {
    /// Packs.
    pub packs: u64,
    /// Sequences: of each pack the largest of its numbers.
    pub sequences: u64,
}

/// Counts a file of that layout; reads it from end to end. The first pack must keep all rules of
/// its form, the others those of what is counted.
///
/// # Errors
///
/// A file that can't be read, or that ends within a pack; a pack without a sequence or with more
/// than the layout has.
pub fn count(path: &Path, layout: PackLayout) -> Result<PackCount> {
    let bytes = inspect::size(path)?;
    let packs = layout.packs_in(bytes);
    let packs = packs.map_err(|error| super::data_error(path, error))?;
    let opened = files::open(path).map_err(|source| cannot_read(path, source))?;
    let mut file = BufReader::new(opened);
    let mut bytes = vec![0; layout.bytes()];
    let mut sequences = 0;
    for place in 0..packs {
        let read = file.read_exact(&mut bytes);
        read.map_err(|source| cannot_read(path, source))?;
        let pack = Pack::from_bytes(layout, &bytes).expect("so many bytes were read");
        if pack.count() == 0 {
            let path = path.into();
            return Err(DataError::EmptyPack { path, pack: place }.into());
        }
        let fault = match place {
            0 => pack.fault(),
            _ => pack.number_fault(),
        };
        if let Some(fault) = fault {
            let path = path.into();
            return Err(DataError::PackForm {
                path,
                pack: place,
                fault,
            }
            .into());
        }
        sequences += u64::from(pack.count());
    }
    Ok(PackCount { packs, sequences })
}

#[cfg(test)]
mod tests {
    use bert_model::data::{Case, Leftovers, PackField, Recipe};

    use super::*;
    use crate::data::{benchmark, pretraining};

    /// Records of the shipped text in a new folder, and a request to pack them there.
    fn request(folder: &Path, form: PackForm) -> Request {
        let place = |name: &str| folder.join(name);
        fs::write(place("text.txt"), benchmark::TEXT).unwrap();
        fs::write(place("vocab.txt"), benchmark::VOCABULARY).unwrap();
        let layout = RecordLayout {
            sequence_length: 64,
            mask_tokens: 10,
        };
        let of_text = pretraining::Request {
            input_files: place("text.txt").display().to_string(),
            output_files: place("records").display().to_string(),
            vocabulary: place("vocab.txt"),
            case: Case::Lower,
            recipe: Recipe {
                layout,
                mask_probability: 0.15,
                short_sequence_probability: 1.0,
                pad_position: 64,
                seed: 7,
            },
            copies: 8,
            samples_max: None,
            replace: Replace::No,
        };
        pretraining::make(&of_text, &ProgressBar::hidden()).unwrap();
        Request {
            input_files: place("records").display().to_string(),
            output: place("packed"),
            recipe: PackingRecipe {
                layout: PackLayout {
                    sequence_length: 64,
                    mask_tokens: 10,
                    sequences: 3,
                    form,
                },
                leftovers: Leftovers::Pad,
                seed: 3,
            },
            copies: 1,
            replace: Replace::No,
        }
    }

    /// Every record of a text is in a pack, in either form, and counted there.
    #[test]
    fn a_text_becomes_packs() {
        for form in [PackForm::Slices, PackForm::Slots] {
            let folder = tempfile::tempdir().unwrap();
            let request = request(folder.path(), form);
            let counts = make(&request, &ProgressBar::hidden()).unwrap();
            assert_eq!(
                counts.packed + counts.dropped + counts.crowded,
                counts.records
            );
            assert_eq!(counts.dropped, 0);
            let several = counts.packed as f64 / counts.packs() as f64;
            assert!(several > 1.05, "{several} in a pack");
            let mut found = PackCount::default();
            for (path, packs) in &counts.files {
                let layout = layout_of(path, request.recipe.layout).unwrap();
                assert_eq!(layout.form, form);
                let count = count(path, layout).unwrap();
                assert_eq!(count.packs, *packs);
                found.packs += count.packs;
                found.sequences += count.sequences;
                let name = path.file_name().unwrap().to_str().unwrap();
                let expected = match form {
                    PackForm::Slices => "duplication_0",
                    PackForm::Slots => "strategy_",
                };
                assert!(name.starts_with(expected), "{name}");
                let bytes = fs::read(path).unwrap();
                for bytes in bytes.chunks_exact(layout.bytes()) {
                    let pack = Pack::from_bytes(layout, bytes).unwrap();
                    assert_eq!(pack.fault(), None);
                }
            }
            assert_eq!(found.sequences, counts.packed);
            // Nothing is replaced unasked.
            let again = make(&request, &ProgressBar::hidden()).unwrap_err();
            assert!(again.to_string().contains("--force"), "{again}");
        }
    }

    /// A file of nothing but a length is refused at its first record or pack.
    #[test]
    fn huge_files_of_nothing_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut request = request(folder.path(), PackForm::Slices);
        let path = folder.path().join("huge");
        let layout = request.recipe.layout;
        let of_record = 4 * (3 * 64 + 10 + 3);
        let set_rows = |rows: u64, bytes: u64| {
            let file = fs::File::create(&path).unwrap();
            file.set_len(rows * bytes).unwrap();
        };
        request.input_files = path.display().to_string();
        set_rows(4_000_000, of_record);
        let error = make(&request, &ProgressBar::hidden()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("record 0 is none of this form"),
            "{error}"
        );
        set_rows(10_000_000, of_record);
        let error = make(&request, &ProgressBar::hidden()).unwrap_err();
        let expected = "--unpacked-dataset-duplication-factor 1: the records of a copy take \
                        8200000000 bytes of memory, expected at most 4294967296: name fewer files";
        assert_eq!(error.to_string(), expected);
        set_rows(100_000_000, layout.bytes() as u64);
        let error = count(&path, layout).unwrap_err().to_string();
        assert!(
            error.ends_with("huge: pack 0 has no sequence: not a file of packs in this form"),
            "{error}"
        );
    }

    /// Files of later copies are looked at before records are read, and those behind the last whole
    /// copy are counted.
    #[test]
    fn copies_are_checked_first_and_what_is_left_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let mut request = request(folder.path(), PackForm::Slices);
        let of_record = 4 * (3 * 64 + 10 + 3);
        let text = fs::read(folder.path().join("records")).unwrap();
        let records = text.len() / of_record;
        // One more than a multiple of three.
        let used = (records - 1) / 3 * 3 + 1;
        fs::write(folder.path().join("records"), &text[..used * of_record]).unwrap();
        request.copies = 3;
        let path = |copy: u32| request.output.join(format!("duplication_{copy}"));
        fs::create_dir(&request.output).unwrap();
        fs::write(path(2), "kept").unwrap();
        let error = make(&request, &ProgressBar::hidden()).unwrap_err();
        let expected = format!("{} is there already", path(2).display());
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert!(!path(0).exists());
        fs::remove_file(path(2)).unwrap();
        let counts = make(&request, &ProgressBar::hidden()).unwrap();
        assert_eq!((counts.records, counts.unread), (used as u64, 1));
        let of_all = counts.packed + counts.dropped + counts.crowded + counts.unread;
        assert_eq!(of_all, counts.records);
    }

    /// Where no pack can be made, no file is.
    #[test]
    fn no_packs_are_no_files() {
        let folder = tempfile::tempdir().unwrap();
        let mut request = request(folder.path(), PackForm::Slices);
        request.recipe.leftovers = Leftovers::Drop;
        let text = fs::read(folder.path().join("records")).unwrap();
        let of_record = 4 * (3 * 64 + 10 + 3);
        fs::write(folder.path().join("records"), &text[..of_record]).unwrap();
        let error = make(&request, &ProgressBar::hidden()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("no pack was made of 1 records"),
            "{error}"
        );
        assert_eq!(fs::read_dir(&request.output).unwrap().count(), 0);
    }

    /// The first pack keeps all rules, the others have no sequence beyond the last.
    #[test]
    fn packs_of_another_form_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let request = request(folder.path(), PackForm::Slices);
        let counts = make(&request, &ProgressBar::hidden()).unwrap();
        let (path, layout) = (&counts.files[0].0, request.recipe.layout);
        let sound = fs::read(path).unwrap();
        let start = |pack: usize, field| {
            let place = layout.field(field).unwrap().start;
            pack * layout.bytes() + 4 * place
        };
        for (place, value, expected) in [
            (
                start(1, PackField::Numbers),
                4,
                "pack 1: sequence 4, expected at most 3",
            ),
            (
                start(0, PackField::Positions),
                60,
                "pack 0: sequence 1 has no word at position",
            ),
        ] {
            let mut bytes = sound.clone();
            bytes[place] = value;
            fs::write(path, &bytes).unwrap();
            let error = count(path, layout).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(
                error.contains("not a file of packs in this form"),
                "{error}"
            );
        }
        fs::write(path, &sound).unwrap();
        count(path, layout).unwrap();
    }

    #[test]
    fn copies_are_files_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut request = request(folder.path(), PackForm::Slices);
        request.copies = 2;
        let counts = make(&request, &ProgressBar::hidden()).unwrap();
        let names: Vec<_> = counts.files.iter().map(|(path, _)| path).collect();
        let expected = ["duplication_0", "duplication_1"].map(|name| request.output.join(name));
        assert_eq!(names, expected.iter().collect::<Vec<_>>());
        request.recipe.layout.form = PackForm::Slots;
        let error = make(&request, &ProgressBar::hidden()).unwrap_err();
        assert!(error.to_string().contains("--form v2.1"), "{error}");
    }

    #[test]
    fn a_file_tells_its_form_by_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("packs");
        let layout = PackLayout {
            sequence_length: 512,
            mask_tokens: 76,
            sequences: 3,
            form: PackForm::Slices,
        };
        for (bytes, form) in [(3 * 8_840, PackForm::Slices), (3 * 9_176, PackForm::Slots)] {
            fs::File::create(&path).unwrap().set_len(bytes).unwrap();
            assert_eq!(layout_of(&path, layout).unwrap().form, form);
        }
        fs::File::create(&path).unwrap().set_len(8_841).unwrap();
        let error = layout_of(&path, layout).unwrap_err().to_string();
        assert!(
            error.contains("a multiple of 8840 bytes, or of 9176"),
            "{error}"
        );
    }
}
