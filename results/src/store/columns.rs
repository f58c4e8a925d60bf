//! Columns of a Parquet file: how each kind of number is laid out, and the same numbers back.
//!
//! Lossless: what is read equals what was written, bit for bit, but for NaN, which is a null in the file
//! and the one NaN after. It refuses a file whose columns are not the ones asked for, or whose row groups
//! are larger than any that [`Sheet`] writes, before it takes memory for them.

use super::error::{Operation, StoreError};
use super::manifest::{FileEntry, Pending};
use parquet::basic::{Compression, Encoding, Repetition, Type as Physical, ZstdLevel};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{BoolType, DataType, DoubleType, FloatType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{ColumnPath, Type, TypePtr};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows of one row group at most.
pub const GROUP_ROWS: usize = 65_536;
/// Columns decoded to more than this for one row group are refused, B.
const CHUNK_MAX: i64 = 64 << 20;
/// Fast to write, and the byte streams leave little for a higher level to find.
const ZSTD_LEVEL: i32 = 1;

/// How a column lies in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 64-bit integers that mostly grow: delta, binary packed.
    Long,
    /// 32-bit integers of few values: dictionary.
    Short,
    Flag,
    /// 64-bit floats of few values: dictionary.
    Double,
    /// Nullable 32-bit floats: byte streams.
    Float32,
    /// Nullable 64-bit floats: byte streams.
    Float64,
}

/// A column's name and layout.
pub type Spec = (String, Kind);

/// The numbers of a column, in the form in which the frames hold them.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    Long(Vec<u64>),
    Short(Vec<u32>),
    Flag(Vec<bool>),
    Float(Vec<f64>),
}

impl Column {
    /// An empty column for a layout.
    pub fn new(kind: Kind) -> Self {
        match kind {
            Kind::Long => Self::Long(Vec::new()),
            Kind::Short => Self::Short(Vec::new()),
            Kind::Flag => Self::Flag(Vec::new()),
            Kind::Double | Kind::Float32 | Kind::Float64 => Self::Float(Vec::new()),
        }
    }

    /// Bytes of one number in [`Column::put_bytes`].
    pub(super) fn width(&self) -> usize {
        match self {
            Self::Long(_) | Self::Float(_) => 8,
            Self::Short(_) => 4,
            Self::Flag(_) => 1,
        }
    }

    /// Appends all numbers as bytes.
    pub(super) fn put_bytes(&self, to: &mut Vec<u8>) {
        match self {
            Self::Long(v) => v.iter().for_each(|x| to.extend(x.to_le_bytes())),
            Self::Short(v) => v.iter().for_each(|x| to.extend(x.to_le_bytes())),
            Self::Flag(v) => to.extend(v.iter().map(|x| u8::from(*x))),
            Self::Float(v) => v.iter().for_each(|x| to.extend(x.to_le_bytes())),
        }
    }

    /// Appends numbers that [`Column::put_bytes`] gave.
    pub(super) fn take_bytes(&mut self, from: &[u8]) {
        let eights = || from.as_chunks().0.iter();
        match self {
            Self::Long(v) => v.extend(eights().map(|b| u64::from_le_bytes(*b))),
            Self::Short(v) => v.extend(from.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b))),
            Self::Flag(v) => v.extend(from.iter().map(|b| *b != 0)),
            Self::Float(v) => v.extend(eights().map(|b| f64::from_le_bytes(*b))),
        }
    }

    /// Appends some numbers of a column of the same layout.
    pub(super) fn extend(&mut self, from: &Self, range: std::ops::Range<usize>) {
        match (self, from) {
            (Self::Long(to), Self::Long(from)) => to.extend_from_slice(&from[range]),
            (Self::Short(to), Self::Short(from)) => to.extend_from_slice(&from[range]),
            (Self::Flag(to), Self::Flag(from)) => to.extend_from_slice(&from[range]),
            (Self::Float(to), Self::Float(from)) => to.extend_from_slice(&from[range]),
            _ => {}
        }
    }

    pub fn clear(&mut self) {
        match self {
            Self::Long(v) => v.clear(),
            Self::Short(v) => v.clear(),
            Self::Flag(v) => v.clear(),
            Self::Float(v) => v.clear(),
        }
    }
}

fn schema(specs: &[Spec]) -> Result<TypePtr, ParquetError> {
    let fields: Result<Vec<TypePtr>, ParquetError> = specs
        .iter()
        .map(|(name, kind)| {
            let (physical, repetition) = match kind {
                Kind::Long => (Physical::INT64, Repetition::REQUIRED),
                Kind::Short => (Physical::INT32, Repetition::REQUIRED),
                Kind::Flag => (Physical::BOOLEAN, Repetition::REQUIRED),
                Kind::Double => (Physical::DOUBLE, Repetition::REQUIRED),
                Kind::Float32 => (Physical::FLOAT, Repetition::OPTIONAL),
                Kind::Float64 => (Physical::DOUBLE, Repetition::OPTIONAL),
            };
            let builder = Type::primitive_type_builder(name, physical).with_repetition(repetition);
            Ok(Arc::new(builder.build()?))
        })
        .collect();
    Ok(Arc::new(
        Type::group_type_builder("hallmark")
            .with_fields(fields?)
            .build()?,
    ))
}

fn properties(specs: &[Spec], notes: &[(&str, String)]) -> Result<WriterProperties, ParquetError> {
    let mut builder = WriterProperties::builder()
        .set_created_by("hallmark".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_max_row_group_row_count(Some(GROUP_ROWS));
    for (name, kind) in specs {
        let path = ColumnPath::new(vec![name.clone()]);
        builder = match kind {
            Kind::Short | Kind::Double => builder.set_column_dictionary_enabled(path, true),
            Kind::Flag => builder.set_column_dictionary_enabled(path, false),
            Kind::Long => builder
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED),
            Kind::Float32 | Kind::Float64 => builder
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, Encoding::BYTE_STREAM_SPLIT),
        };
    }
    let notes = notes
        .iter()
        .map(|(key, value)| KeyValue::new((*key).to_owned(), value.clone()));
    Ok(builder
        .set_key_value_metadata(Some(notes.collect()))
        .build())
}

/// A Parquet file that is being written, one row group after the other.
pub struct Sheet {
    writer: SerializedFileWriter<Pending>,
    path: PathBuf,
    specs: Vec<Spec>,
    rows: u64,
}

impl Sheet {
    /// `notes`: key and value pairs for the file's footer.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be created.
    pub fn create(
        dir: &Path,
        name: &str,
        specs: Vec<Spec>,
        notes: &[(&str, String)],
    ) -> Result<Self, StoreError> {
        let path = dir.join(name);
        let failed = |e| write_error(&path, e);
        let properties = Arc::new(properties(&specs, notes).map_err(failed)?);
        let schema = schema(&specs).map_err(failed)?;
        let pending = Pending::create(dir, name)?;
        let writer = SerializedFileWriter::new(pending, schema, properties).map_err(failed)?;
        Ok(Self {
            writer,
            path,
            specs,
            rows: 0,
        })
    }

    pub fn specs(&self) -> &[Spec] {
        &self.specs
    }

    /// Writes the columns, all equally long and at most [`GROUP_ROWS`], as one row group.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub fn group(&mut self, columns: &[Column], rows: usize) -> Result<(), StoreError> {
        if rows == 0 {
            return Ok(());
        }
        self.rows += rows as u64;
        let written = write_group(&mut self.writer, &self.specs, columns);
        written.map_err(|e| write_error(&self.path, e))
    }

    /// Ends the file and gives it its name.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub fn finish(self) -> Result<FileEntry, StoreError> {
        // Taking the inner writer out writes the footer first.
        let pending = self
            .writer
            .into_inner()
            .map_err(|e| write_error(&self.path, e))?;
        pending.finish(self.rows)
    }
}

fn write_group(
    writer: &mut SerializedFileWriter<Pending>,
    specs: &[Spec],
    columns: &[Column],
) -> Result<(), ParquetError> {
    let mut group = writer.next_row_group()?;
    for ((_, kind), column) in specs.iter().zip(columns) {
        match (kind, column) {
            (Kind::Long, Column::Long(v)) => {
                let signed: Vec<i64> = v.iter().map(|x| x.cast_signed()).collect();
                write::<Int64Type>(&mut group, &signed, None)?;
            }
            (Kind::Short, Column::Short(v)) => {
                let signed: Vec<i32> = v.iter().map(|x| x.cast_signed()).collect();
                write::<Int32Type>(&mut group, &signed, None)?;
            }
            (Kind::Flag, Column::Flag(v)) => write::<BoolType>(&mut group, v, None)?,
            (Kind::Double, Column::Float(v)) => write::<DoubleType>(&mut group, v, None)?,
            (Kind::Float32, Column::Float(v)) => {
                let present: Vec<f32> = v
                    .iter()
                    .filter(|x| !x.is_nan())
                    .map(|x| *x as f32)
                    .collect();
                write::<FloatType>(&mut group, &present, Some(&levels(v)))?;
            }
            (Kind::Float64, Column::Float(v)) => {
                let present: Vec<f64> = v.iter().copied().filter(|x| !x.is_nan()).collect();
                write::<DoubleType>(&mut group, &present, Some(&levels(v)))?;
            }
            _ => return Err(ParquetError::General(format!("a column is no {kind:?}"))),
        }
    }
    group.close()?;
    Ok(())
}

fn levels(values: &[f64]) -> Vec<i16> {
    values.iter().map(|x| i16::from(!x.is_nan())).collect()
}

fn write<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Pending>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let next = group.next_column()?;
    let mut column =
        next.ok_or_else(|| ParquetError::General("more columns than the schema has".to_owned()))?;
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}

fn write_error(path: &Path, error: ParquetError) -> StoreError {
    match error {
        ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
            Ok(io) => StoreError::io(path, Operation::Write, *io),
            Err(other) => StoreError::format(path, other),
        },
        other => StoreError::format(path, other),
    }
}

/// A Parquet file that is being read, batch by batch.
pub struct SheetReader {
    reader: SerializedFileReader<File>,
    path: PathBuf,
    specs: Vec<Spec>,
    group: usize,
    /// Rows left in the open row group.
    left: usize,
    open: Vec<ColumnReader>,
    levels: Vec<i16>,
    floats: Vec<f32>,
}

impl SheetReader {
    /// Opens a file whose columns must be `specs`, in this order; a [`Kind::Float32`] may be a [`Kind::Float64`].
    ///
    /// # Errors
    /// [`StoreError::Format`] for another schema, another number of rows, or row groups beyond the limits.
    pub fn open(dir: &Path, entry: &FileEntry, mut specs: Vec<Spec>) -> Result<Self, StoreError> {
        let path = dir.join(&entry.name);
        let file = File::open(&path).map_err(|e| StoreError::io(&path, Operation::Open, e))?;
        let reader = SerializedFileReader::new(file).map_err(|e| StoreError::format(&path, e))?;
        let metadata = reader.metadata();
        let wrong = |why: String| Err(StoreError::format(&path, why));
        let found = metadata.file_metadata().schema_descr();
        if found.num_columns() != specs.len() {
            return wrong(format!(
                "it has {} columns, {} are declared",
                found.num_columns(),
                specs.len()
            ));
        }
        for (column, (name, kind)) in found.columns().iter().zip(&mut specs) {
            let optional = column.max_def_level() == 1;
            let fits = match (*kind, column.physical_type()) {
                (Kind::Long, Physical::INT64)
                | (Kind::Short, Physical::INT32)
                | (Kind::Flag, Physical::BOOLEAN)
                | (Kind::Double, Physical::DOUBLE) => !optional,
                (Kind::Float32, Physical::DOUBLE) => {
                    *kind = Kind::Float64;
                    optional
                }
                (Kind::Float32, Physical::FLOAT) | (Kind::Float64, Physical::DOUBLE) => optional,
                _ => false,
            };
            if !fits || column.path().parts() != [name.clone()] || column.max_rep_level() != 0 {
                return wrong(format!(
                    "column `{}` is not the declared `{name}`",
                    column.path()
                ));
            }
        }
        let mut rows: u64 = 0;
        for group in metadata.row_groups() {
            let count = u64::try_from(group.num_rows()).unwrap_or(u64::MAX);
            let large = group
                .columns()
                .iter()
                .any(|c| c.uncompressed_size() > CHUNK_MAX);
            if count > GROUP_ROWS as u64 || large {
                return wrong(format!(
                    "a row group of {count} rows is larger than any that is written"
                ));
            }
            rows = rows.saturating_add(count);
        }
        if rows != entry.rows {
            return wrong(format!("it has {rows} rows, {} were sealed", entry.rows));
        }
        Ok(Self {
            reader,
            path,
            specs,
            group: 0,
            left: 0,
            open: Vec::new(),
            levels: Vec::new(),
            floats: Vec::new(),
        })
    }

    /// The next rows, `most` at most; `None` after the last.
    ///
    /// # Errors
    /// [`StoreError::Format`] where the file does not hold what its footer says.
    pub fn batch(&mut self, most: usize) -> Result<Option<(Vec<Column>, usize)>, StoreError> {
        let batch = self.next_batch(most);
        batch.map_err(|e| StoreError::format(&self.path, e))
    }

    fn next_batch(&mut self, most: usize) -> Result<Option<(Vec<Column>, usize)>, ParquetError> {
        while self.left == 0 {
            if self.group >= self.reader.num_row_groups() {
                return Ok(None);
            }
            let group = self.reader.get_row_group(self.group)?;
            self.left = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
            let columns = 0..self.specs.len();
            self.open = columns
                .map(|i| group.get_column_reader(i))
                .collect::<Result<_, _>>()?;
            self.group += 1;
        }
        let rows = self.left.min(most);
        self.left -= rows;
        let mut columns = Vec::with_capacity(self.specs.len());
        for (reader, (_, kind)) in self.open.iter_mut().zip(&self.specs) {
            columns.push(match (reader, kind) {
                (ColumnReader::Int64ColumnReader(r), Kind::Long) => Column::Long(
                    required(r, rows)?
                        .into_iter()
                        .map(i64::cast_unsigned)
                        .collect(),
                ),
                (ColumnReader::Int32ColumnReader(r), Kind::Short) => Column::Short(
                    required(r, rows)?
                        .into_iter()
                        .map(i32::cast_unsigned)
                        .collect(),
                ),
                (ColumnReader::BoolColumnReader(r), Kind::Flag) => Column::Flag(required(r, rows)?),
                (ColumnReader::DoubleColumnReader(r), Kind::Double) => {
                    Column::Float(required(r, rows)?)
                }
                (ColumnReader::FloatColumnReader(r), Kind::Float32) => {
                    self.floats.clear();
                    nullable(r, rows, &mut self.levels, &mut self.floats)?;
                    let wide = self.floats.iter().map(|x| f64::from(*x));
                    Column::Float(spread(wide, &self.levels, rows)?)
                }
                (ColumnReader::DoubleColumnReader(r), Kind::Float64) => {
                    let mut values = Vec::with_capacity(rows);
                    nullable(r, rows, &mut self.levels, &mut values)?;
                    match values.len() == rows {
                        true => Column::Float(values),
                        false => Column::Float(spread(values.into_iter(), &self.levels, rows)?),
                    }
                }
                (_, kind) => return Err(ParquetError::General(format!("a column is no {kind:?}"))),
            });
        }
        Ok(Some((columns, rows)))
    }
}

fn short(rows: usize) -> ParquetError {
    ParquetError::General(format!("a column ends before its {rows} rows"))
}

fn required<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    rows: usize,
) -> Result<Vec<T::T>, ParquetError> {
    let mut values = Vec::with_capacity(rows);
    while values.len() < rows {
        let (records, _, _) = reader.read_records(rows - values.len(), None, None, &mut values)?;
        if records == 0 {
            return Err(short(rows));
        }
    }
    Ok(values)
}

fn nullable<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    rows: usize,
    levels: &mut Vec<i16>,
    values: &mut Vec<T::T>,
) -> Result<(), ParquetError> {
    levels.clear();
    while levels.len() < rows {
        let (records, _, _) =
            reader.read_records(rows - levels.len(), Some(levels), None, values)?;
        if records == 0 {
            return Err(short(rows));
        }
    }
    Ok(())
}

/// Puts NaN where a level says that there is no value.
fn spread(
    mut values: impl ExactSizeIterator<Item = f64>,
    levels: &[i16],
    rows: usize,
) -> Result<Vec<f64>, ParquetError> {
    if values.len() == rows {
        return Ok(values.collect());
    }
    let placed: Option<Vec<f64>> = levels
        .iter()
        .map(|level| {
            if *level == 0 {
                Some(f64::NAN)
            } else {
                values.next()
            }
        })
        .collect();
    placed.ok_or_else(|| short(rows))
}
