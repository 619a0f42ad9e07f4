//! `stoa import`: files into the shop, streaming, resumable, and saying what it refuses.
//!
//! The position file beside the import file says how far it came; it moves only behind what the shop has taken. A year of
//! sales has a second one for its sales, which are played when all goods are in. Request ids
//! follow from what is asked (see `stocking`), so what is sent twice has one effect. Refused records go to a reject file, one
//! JSON object a line with the line of the import file and the reason.

use std::fs::{self, File};
use std::io::{self, BufRead, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::goods::Product;
use crate::import::{self, Position, Record, Reject, eshop, jsonl};
use crate::shop::Shop;
use crate::stocking;
use crate::work::Voice;

mod bought;
mod retail;
mod sales;

/// Flags of `stoa import`.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
pub(crate) struct Line {
    /// File to import; may be packed with gzip
    file: PathBuf,
    /// What it is; told by its name where not given
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Currency of prices in a file that does not say it (catalog.json)
    #[arg(long, default_value = "EUR")]
    currency: String,
    /// Begin at the start, whatever was imported before
    #[arg(long)]
    from_start: bool,
    /// Where refused records go; by default FILE.rejects beside the file
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Where the position is kept; by default FILE.position beside the file
    #[arg(long, value_name = "FILE")]
    position: Option<PathBuf>,
    /// Warehouse that receives the goods of a year of sales
    #[arg(long, default_value = "main")]
    warehouse: String,
    /// Of a year of sales take the catalogue and the stock alone
    #[arg(long)]
    goods_only: bool,
}

/// Kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
enum Format {
    /// One product a line, as JSON
    Jsonl,
    /// An array of {Id, Type, Brand, Name, Description, Price}
    Catalog,
    /// The "Online Retail" year of sales, CSV
    Retail,
}

impl Line {
    /// With paths that mean the same from another folder.
    pub(crate) fn absolute(mut self) -> io::Result<Self> {
        self.file = fs::canonicalize(&self.file)?;
        for path in [&mut self.rejects, &mut self.position].into_iter().flatten() {
            *path = std::path::absolute(&*path)?;
        }
        Ok(self)
    }

    fn format(&self) -> anyhow::Result<Format> {
        if let Some(format) = self.format {
            return Ok(format);
        }
        let name = self.file.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        match name.rsplit_once('.').map(|(_, end)| end) {
            Some("jsonl" | "ndjson") => Ok(Format::Jsonl),
            Some("json") => Ok(Format::Catalog),
            Some("csv") => Ok(Format::Retail),
            _ => bail!("the name of {} does not tell its format: say --format", self.file.display()),
        }
    }

    fn beside(&self, end: &str) -> PathBuf {
        let mut name = self.file.clone().into_os_string();
        name.push(end);
        PathBuf::from(name)
    }
}

/// Imports the file; true if nothing was refused.
pub(crate) async fn import(line: Line, shop: &Shop, voice: &Voice) -> anyhow::Result<bool> {
    let format = line.format()?;
    let mut job = Job::open(&line)?;
    match format {
        Format::Jsonl => {
            let mut reader = jsonl::Reader::resume(job.text()?, job.position)?;
            goods(&mut job, shop, voice, || {
                let record = reader.next();
                (record, reader.position())
            })
            .await?;
        }
        Format::Catalog => {
            let mut reader = eshop::Reader::resume(job.text()?, &line.currency, job.position)?;
            goods(&mut job, shop, voice, || {
                let record = reader.next();
                (record, reader.position())
            })
            .await?;
        }
        Format::Retail => {
            retail::import(&mut job, shop, &line.warehouse, voice).await?;
            if !line.goods_only {
                sales::play(&mut job, shop, voice).await?;
            }
        }
    }
    job.finish(voice).await
}

/// An import under way.
struct Job {
    file: PathBuf,
    position: Position,
    position_path: PathBuf,
    from_start: bool,
    rejects: File,
    rejects_path: PathBuf,
    bytes: u64,
    packed: bool,
    taken: u64,
    refused: u64,
    created: i64,
    updated: i64,
    unchanged: i64,
}

/// A refused record as it stands in the reject file.
#[derive(Serialize)]
struct Refused<'a> {
    line: u64,
    reason: &'a str,
    detail: &'a str,
    text: &'a str,
}

impl Job {
    fn open(line: &Line) -> anyhow::Result<Self> {
        let position_path = line.position.clone().unwrap_or_else(|| line.beside(".position"));
        let rejects_path = line.rejects.clone().unwrap_or_else(|| line.beside(".rejects"));
        let position = if line.from_start { Position::START } else { read_position(&position_path)? };
        let begun = position != Position::START;
        let rejects = File::options().create(true).write(true).append(begun).truncate(!begun).open(&rejects_path);
        let rejects = rejects.with_context(|| format!("{} cannot be written", rejects_path.display()))?;
        let mut head = [0; 2];
        let mut file = File::open(&line.file).with_context(|| format!("{} cannot be read", line.file.display()))?;
        let packed = io::Read::read(&mut file, &mut head)? == 2 && head == [0x1f, 0x8b];
        Ok(Self {
            bytes: file.metadata()?.len(),
            file: line.file.clone(),
            position,
            position_path,
            from_start: line.from_start,
            rejects,
            rejects_path,
            packed,
            taken: 0,
            refused: 0,
            created: 0,
            updated: 0,
            unchanged: 0,
        })
    }

    fn text(&self) -> anyhow::Result<Box<dyn BufRead + Send>> {
        Ok(import::unpacked(File::open(&self.file)?)?)
    }

    fn refuse(&mut self, line: u64, reason: &str, detail: &str, text: &str) -> io::Result<()> {
        self.refused += 1;
        let mut record = serde_json::to_vec(&Refused { line, reason, detail, text })?;
        record.push(b'\n');
        self.rejects.write_all(&record)
    }

    fn reject(&mut self, reject: &Reject) -> io::Result<()> {
        self.refuse(reject.line, reject.reason.code(), &reject.detail, &reject.text)
    }

    /// Everything before `position` is in the shop or in the reject file.
    fn advance(&mut self, position: Position) -> io::Result<()> {
        self.rejects.sync_data()?;
        self.position = position;
        write_position(&self.position_path, position)
    }

    /// A file beside the position file.
    fn beside_position(&self, end: &str) -> PathBuf {
        let mut name = self.position_path.clone().into_os_string();
        name.push(end);
        PathBuf::from(name)
    }

    async fn tell(&self, voice: &Voice, note: &str) {
        self.tell_at(self.position, voice, note).await;
    }

    async fn tell_at(&self, position: Position, voice: &Voice, note: &str) {
        let total = if self.packed { 0 } else { self.bytes };
        let note = format!("line {}: {} taken, {} refused{note}", position.line, self.taken, self.refused);
        voice.progress(position.byte, total, note).await;
    }

    async fn finish(self, voice: &Voice) -> anyhow::Result<bool> {
        let Self { taken, refused, created, updated, unchanged, .. } = self;
        voice.line(format!("{taken} taken: {created} new, {updated} changed, {unchanged} as they were")).await;
        if refused > 0 {
            voice.line(format!("{refused} refused: {}", self.rejects_path.display())).await;
        }
        Ok(refused == 0)
    }
}

/// Products and their stock, batch after batch.
async fn goods(
    job: &mut Job,
    shop: &Shop,
    voice: &Voice,
    mut next: impl FnMut() -> (Option<Result<Record<Product>, import::Error>>, Position),
) -> anyhow::Result<()> {
    let mut batch: Vec<(u64, Product)> = Vec::new();
    loop {
        let begins = job.position.line;
        let (record, position) = next();
        let ended = record.is_none();
        match record.transpose()? {
            Some(Record::Good(product)) => batch.push((position.line.saturating_sub(1).max(begins), product)),
            Some(Record::Rejected(reject)) => job.reject(&reject)?,
            None => {}
        }
        if batch.len() == stocking::BATCH || (ended && !batch.is_empty()) {
            put(job, shop, &mut batch, voice).await?;
            job.advance(position)?;
            job.tell(voice, "").await;
        }
        if ended {
            job.advance(position)?;
            return Ok(());
        }
        if voice.unheard() {
            bail!("nobody waits for it any more");
        }
    }
}

async fn put(job: &mut Job, shop: &Shop, batch: &mut Vec<(u64, Product)>, voice: &Voice) -> anyhow::Result<()> {
    let (lines, products): (Vec<u64>, Vec<Product>) = batch.drain(..).unzip();
    let stocked = stocking::put(shop, &products, voice).await?;
    job.taken += (products.len() - stocked.failures.len()) as u64;
    job.created += stocked.created;
    job.updated += stocked.updated;
    job.unchanged += stocked.unchanged;
    for (place, reason, detail) in stocked.failures {
        let line = lines.get(place).copied().unwrap_or_default();
        let text = products.get(place).map(|product| product.title.as_str()).unwrap_or_default();
        job.refuse(line, &reason, &detail, text)?;
    }
    Ok(())
}

fn read_position(path: &Path) -> anyhow::Result<Position> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Position::START),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
    };
    parse_position(&text).with_context(|| format!("{} is no position; --from-start begins anew", path.display()))
}

fn parse_position(text: &str) -> Option<Position> {
    let (byte, line) = text.trim().split_once(' ')?;
    Some(Position { byte: byte.parse().ok()?, line: line.parse().ok()? })
}

fn write_position(path: &Path, position: Position) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    fs::write(&draft, format!("{} {}\n", position.byte, position.line))?;
    fs::rename(&draft, path)
}
