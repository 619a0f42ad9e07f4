//! The elements of a JSON array, one at a time: finds where each begins and ends, and leaves its meaning to others.

use std::io::BufRead;

use super::{Error, LARGEST_RECORD, Position};

/// An element as it stands in the file.
pub(super) struct Element {
    /// Line it begins in.
    pub(super) line: u64,
    /// Its text; only the beginning, when it is longer than a record may be.
    pub(super) text: Vec<u8>,
    /// It is longer.
    pub(super) too_long: bool,
}

/// The walk through the array.
pub(super) struct Elements<R> {
    file: R,
    position: Position,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    BeforeArray,
    BeforeFirst,
    BeforeNext,
    AfterElement,
    Ended,
}

impl<R: BufRead> Elements<R> {
    pub(super) fn new(file: R) -> Self {
        Self { file, position: Position::START, state: State::BeforeArray }
    }

    /// Continues behind an element.
    pub(super) fn resume(mut file: R, position: Position) -> Result<Self, Error> {
        super::skip_to(&mut file, position)?;
        Ok(Self {
            file,
            position,
            state: if position == Position::START { State::BeforeArray } else { State::AfterElement },
        })
    }

    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// The next element, or nothing behind the last.
    pub(super) fn next(&mut self) -> Option<Result<Element, Error>> {
        let element = self.element();
        if element.is_err() {
            self.state = State::Ended;
        }
        element.transpose()
    }

    fn element(&mut self) -> Result<Option<Element>, Error> {
        loop {
            if self.state == State::Ended {
                return Ok(None);
            }
            let line = self.position.line;
            let byte = self.peek()?;
            match (self.state, byte) {
                (_, Some(b' ' | b'\t' | b'\r' | b'\n')) => self.bump(),
                // A byte order mark, which editors leave at the beginning.
                (State::BeforeArray, Some(0xef | 0xbb | 0xbf)) if self.position.byte < 3 => {
                    self.bump();
                }
                (State::BeforeArray, Some(b'[')) => {
                    self.bump();
                    self.state = State::BeforeFirst;
                }
                // Not passed, so that whoever continues from here finds the end again.
                (State::BeforeFirst | State::AfterElement, Some(b']')) => {
                    self.state = State::Ended;
                }
                (State::AfterElement, Some(b',')) => {
                    self.bump();
                    self.state = State::BeforeNext;
                }
                (State::BeforeFirst | State::BeforeNext, Some(byte)) if !matches!(byte, b',' | b']' | b'}' | b':') => {
                    let (text, too_long) = self.scan()?;
                    self.state = State::AfterElement;
                    return Ok(Some(Element { line, text, too_long }));
                }
                (State::BeforeArray, _) => {
                    return Err(Error::Format { line, expected: "a JSON array was expected" });
                }
                (State::BeforeFirst | State::BeforeNext, _) => {
                    return Err(Error::Format { line, expected: "an element of the array was expected" });
                }
                (State::AfterElement | State::Ended, _) => {
                    return Err(Error::Format { line, expected: "a comma or the end of the array was expected" });
                }
            }
        }
    }

    /// Takes one value: up to its closing bracket, or, for a bare one, up to what ends it.
    fn scan(&mut self) -> Result<(Vec<u8>, bool), Error> {
        let mut text = Vec::new();
        let mut too_long = false;
        let (mut depth, mut quoted, mut escaped) = (0_u32, false, false);
        while let Some(byte) = self.peek()? {
            if depth == 0 && !quoted && matches!(byte, b',' | b']' | b'}') {
                return Ok((text, too_long));
            }
            self.bump();
            if text.len() < LARGEST_RECORD {
                text.push(byte);
            } else {
                too_long = true;
            }
            if escaped {
                escaped = false;
            } else if quoted {
                match byte {
                    b'\\' => escaped = true,
                    b'"' => quoted = false,
                    _ => {}
                }
            } else {
                match byte {
                    b'"' => quoted = true,
                    b'{' | b'[' => depth = depth.saturating_add(1),
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return Ok((text, too_long));
                        }
                    }
                    _ => {}
                }
            }
        }
        Err(Error::Format { line: self.position.line, expected: "the file ends within an element" })
    }

    fn peek(&mut self) -> Result<Option<u8>, Error> {
        let line = self.position.line;
        let buffer = self.file.fill_buf().map_err(|source| Error::Reading { line, source })?;
        Ok(buffer.first().copied())
    }

    fn bump(&mut self) {
        if let Ok(buffer) = self.file.fill_buf()
            && buffer.first() == Some(&b'\n')
        {
            self.position.line += 1;
        }
        self.file.consume(1);
        self.position.byte += 1;
    }
}
