//! What can go wrong in a store, as the callers need to tell it apart.
//!
//! Errors are `Clone`: a transaction keeps its first one and gives it again to whoever asks later.

use std::{fmt, path::PathBuf, sync::Arc};

/// A failure of the store; never a decision of the domain.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Another writer has already appended this version (or the one before it is missing).
    #[error("stream {stream} does not take version {version} next")]
    Conflict {
        /// The stream that was appended to.
        stream: String,
        /// The version that was not free, or not next.
        version: u64,
    },
    /// A constraint of a table refused the row.
    #[error("{kind} constraint refused the row: {detail}")]
    Constraint {
        /// Which kind; the names of constraints differ between engines.
        kind: ConstraintKind,
        /// The engine's words, for the log only.
        detail: String,
    },
    /// The engine could not serve in time (lock, serialisation, time limit); trying again is right.
    #[error("the store is busy: {detail}")]
    Busy {
        /// What it waited for.
        detail: String,
    },
    /// No space for the write. Nothing of it is stored; reads go on.
    #[error("the disk or quota of store {service} is full")]
    Full {
        /// The store's name.
        service: &'static str,
    },
    /// A stored event is not what was written. It is never served.
    #[error("store {service}: event {stream} version {version} at position {shard}/{position} is damaged: {detail}")]
    Corrupt {
        /// The store's name.
        service: &'static str,
        /// The stream, as far as it can be read.
        stream: String,
        /// The version within the stream.
        version: u64,
        /// The shard of the log.
        shard: u32,
        /// The position within the shard.
        position: u64,
        /// What does not fit.
        detail: String,
    },
    /// The store's file is damaged below the level of single events.
    #[error("store {service} is damaged: {detail}")]
    Damaged {
        /// The store's name.
        service: &'static str,
        /// The engine's words.
        detail: String,
    },
    /// Another process has the store open.
    #[error("{} is in use by {holder}", path.display())]
    Locked {
        /// The file of the store.
        path: PathBuf,
        /// Who holds it, for example `process 4711`.
        holder: String,
    },
    /// The commit was sent and its outcome never learnt: look the command up by its id.
    #[error("the outcome of the commit is unknown: {detail}")]
    InDoubt {
        /// What happened during the commit.
        detail: String,
    },
    /// The store was closed, or stopped itself after an input/output error.
    #[error("the store is stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
    /// A read body tried to write.
    #[error("a read transaction cannot write")]
    ReadOnly,
    /// The body of a transaction panicked; nothing of it is stored.
    #[error("the body of the transaction panicked: {message}")]
    Panicked {
        /// The message of the panic.
        message: String,
    },
    /// The body awaited something else than its transaction.
    #[error("the body of a transaction may await only its transaction")]
    Suspended,
    /// A column or parameter has another type or range than was asked for.
    #[error("column or parameter {column}: expected {expected}, found {found}")]
    Mismatch {
        /// The column or parameter.
        column: String,
        /// The type asked for.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// The tables in the store and the migrations of this binary do not fit together.
    #[error("migration of store {service}: {detail}")]
    Migration {
        /// The store's name.
        service: &'static str,
        /// What does not fit.
        detail: String,
    },
    /// The store could not be opened as required.
    #[error("store {service} cannot be opened: {detail}")]
    Open {
        /// The store's name.
        service: &'static str,
        /// What is missing or wrong.
        detail: String,
    },
    /// Anything else the engine reported.
    #[error("store engine: {0}")]
    Engine(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

/// The kinds of constraint both engines can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConstraintKind {
    /// UNIQUE or PRIMARY KEY.
    Unique,
    /// CHECK.
    Check,
    /// FOREIGN KEY.
    ForeignKey,
    /// NOT NULL.
    NotNull,
    /// A value of the wrong type for its column.
    Type,
}

impl fmt::Display for ConstraintKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Unique => "unique",
            Self::Check => "check",
            Self::ForeignKey => "foreign key",
            Self::NotNull => "not null",
            Self::Type => "type",
        })
    }
}

impl Error {
    /// Whether the same command may succeed when it is run again from the start.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Conflict { .. } | Self::Busy { .. } => true,
            Self::Constraint { .. }
            | Self::Full { .. }
            | Self::Corrupt { .. }
            | Self::Damaged { .. }
            | Self::Locked { .. }
            | Self::InDoubt { .. }
            | Self::Stopped { .. }
            | Self::ReadOnly
            | Self::Panicked { .. }
            | Self::Suspended
            | Self::Mismatch { .. }
            | Self::Migration { .. }
            | Self::Open { .. }
            | Self::Engine(_) => false,
        }
    }

    /// Whether the statement was refused because such a row exists already.
    pub fn is_unique(&self) -> bool {
        matches!(self, Self::Constraint { kind: ConstraintKind::Unique, .. })
    }

    /// Whether the whole transaction is lost, not only what was done since a savepoint.
    pub(crate) fn is_fatal(&self) -> bool {
        match self {
            Self::Full { .. } | Self::Damaged { .. } | Self::Stopped { .. } | Self::InDoubt { .. } => true,
            Self::Conflict { .. }
            | Self::Constraint { .. }
            | Self::Busy { .. }
            | Self::Corrupt { .. }
            | Self::Locked { .. }
            | Self::ReadOnly
            | Self::Panicked { .. }
            | Self::Suspended
            | Self::Mismatch { .. }
            | Self::Migration { .. }
            | Self::Open { .. }
            | Self::Engine(_) => false,
        }
    }
}
