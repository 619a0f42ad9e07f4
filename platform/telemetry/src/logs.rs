//! Log lines on standard error: for people, or one JSON object a line for machines.

use std::fmt::{self, Write as _};
use std::io::IsTerminal;

use contract::Guard;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One line for people, coloured on a terminal.
    #[default]
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Logging could not be set up.
#[derive(Debug)]
pub enum Error {
    /// The filter is not one `tracing` understands, for example `info,store=debug`.
    Filter(String),
    /// This process already logs somewhere.
    Installed,
}

/// Starts logging for the whole process; spans of calls carry `trace_id`, so every line says which story it belongs to.
pub fn init(format: Format, filter: &str) -> Result<(), Error> {
    let colour = std::io::stderr().is_terminal();
    let installed = match format {
        Format::Pretty => pretty(filter, colour, std::io::stderr)?.try_init(),
        Format::Json => json(filter, std::io::stderr)?.try_init(),
    };
    installed.map_err(|_| Error::Installed)
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "pretty" => Ok(Format::Pretty),
            "json" => Ok(Format::Json),
            other => Err(format!("`{other}` is neither `pretty` nor `json`")),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Pretty => "pretty",
            Format::Json => "json",
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Filter(reason) => write!(f, "the log filter is not understood: {reason}"),
            Error::Installed => f.write_str("logging is already set up"),
        }
    }
}

impl std::error::Error for Error {}

fn pretty<W>(filter: &str, colour: bool, writer: W) -> Result<impl Subscriber + Send + Sync + use<W>, Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let fields = debug_fn(|line, field, value| {
        if field.name() == "message" {
            write!(line, "{}", Escaped(value))
        } else {
            write!(line, "{field}={}", Escaped(value))
        }
    })
    .delimited(" ");
    Ok(tracing_subscriber::fmt()
        .with_env_filter(parse(filter)?)
        .with_ansi(colour)
        .fmt_fields(fields)
        .with_writer(writer)
        .finish())
}

fn json<W>(filter: &str, writer: W) -> Result<impl Subscriber + Send + Sync + use<W>, Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    Ok(tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_env_filter(parse(filter)?)
        .with_writer(writer)
        .finish())
}

fn parse(filter: &str) -> Result<EnvFilter, Error> {
    EnvFilter::try_new(filter).map_err(|error| Error::Filter(error.to_string()))
}

/// A value whose control characters, C1 escapes and line separators are printed as escapes.
struct Escaped<'a>(&'a dyn fmt::Debug);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{:?}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let special = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        if !text.contains(special) || !Guard::LogEscapes.stands() {
            return self.0.write_str(text);
        }
        for c in text.chars() {
            if special(c) {
                write!(self.0, "{}", c.escape_default())?;
            } else {
                self.0.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn text(&self) -> String {
            let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8_lossy(&bytes).into_owned()
        }
    }

    const FORGED: &str = "good\r\nERROR forged line \u{1b}[31mred\u{9b}31m\u{2028}";

    fn log_forged(subscriber: impl Subscriber + Send + Sync + 'static) {
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("call", trace_id = "4bf92f35", input = %FORGED);
            let _entered = span.enter();
            tracing::info!(shown = %FORGED, debugged = ?FORGED, plain = FORGED, "message {FORGED}");
        });
    }

    #[test]
    fn a_forged_line_stays_inside_its_own() {
        let lines = Lines::default();
        let writer = lines.clone();
        log_forged(pretty("info", false, move || writer.clone()).expect("a filter"));
        let writer = lines.clone();
        log_forged(json("info", move || writer.clone()).expect("a filter"));

        let text = lines.text();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.trim_end_matches('\n').chars().all(|c| c == '\n' || !c.is_control() || c > '\u{7f}'), "{text:?}");
        let people = text.lines().next().unwrap_or_default();
        assert!(people.chars().all(|c| !c.is_control() && c != '\u{2028}'), "{people:?}");
    }

    #[test]
    fn every_line_of_a_call_carries_its_trace_id() {
        for format in [Format::Pretty, Format::Json] {
            let lines = Lines::default();
            let writer = lines.clone();
            match format {
                Format::Pretty => log_forged(pretty("info", false, move || writer.clone()).expect("a filter")),
                Format::Json => log_forged(json("info", move || writer.clone()).expect("a filter")),
            }
            assert!(lines.text().contains("4bf92f35"), "{format:?}: {}", lines.text());
        }
    }

    #[test]
    fn a_filter_that_is_none_is_refused() {
        assert!(matches!(parse("store=loud,=,"), Err(Error::Filter(_))));
        assert!(parse("info,store=debug").is_ok());
    }

    #[test]
    fn a_format_is_read_as_it_is_printed() {
        for format in [Format::Pretty, Format::Json] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert!("xml".parse::<Format>().is_err());
    }
}
