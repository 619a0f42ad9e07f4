//! What a peer sends over HTTP/2 beside requests, counted as it is read: a connection that sends too much of it is a flood.
//!
//! The library answers each PING and each SETTINGS and forgets it, so that no memory grows; but a peer that sends nothing else
//! makes the process work at the speed of the wire. So frames that ask for nothing are paid for: by the requests beside them,
//! by what was sent to the peer, which a client acknowledges with such frames, and by time. Resets are counted against
//! requests alone: a client takes some of its requests back, and an attacker all.
//!
//! Only the nine bytes before each frame are looked at, whatever lies in between is skipped.

use std::time::Instant;

use contract::Guard;

/// What every connection over HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes before each frame.
const HEAD: usize = 9;

/// Frames that may come at once without anything that pays for them.
const FRAMES: Budget = Budget { most: 2_000, each_second: 200 };
/// Requests that may be taken back at once.
const RESETS: Budget = Budget { most: 200, each_second: 20 };

/// Frames that a request pays for: its window updates, its pings, its reset.
const OF_A_REQUEST: u32 = 8;
/// Bytes sent to the peer that pay for one frame. More than the answer to a PING has, which must not pay for the next.
const OF_AN_ANSWER: usize = 32;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const END_STREAM: u8 = 1;

/// A peer sent more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flood {
    #[error("the peer sends frames that ask for nothing")]
    Frames,
    #[error("the peer takes its requests back")]
    Resets,
}

/// What is spoken on a connection, as far as its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// So many bytes of the preface have come.
    Unknown(usize),
    Http1,
    Http2,
}

/// The frames of one connection.
#[derive(Debug)]
pub(crate) struct Frames {
    spoken: Spoken,
    head: [u8; HEAD],
    have: usize,
    skip: usize,
    frames: Account,
    resets: Account,
    /// Requests whose half has not been paid in yet.
    half: bool,
    sent: usize,
}

impl Frames {
    pub(crate) fn new(now: Instant) -> Self {
        Frames {
            spoken: Spoken::Unknown(0),
            head: [0; HEAD],
            have: 0,
            skip: 0,
            frames: Account::new(FRAMES, now),
            resets: Account::new(RESETS, now),
            half: false,
            sent: 0,
        }
    }

    pub(crate) fn spoken(&self) -> Spoken {
        self.spoken
    }

    /// These bytes were sent to the peer.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        self.frames.earn(u32::try_from(self.sent / OF_AN_ANSWER).unwrap_or(u32::MAX));
        self.sent %= OF_AN_ANSWER;
    }

    /// These bytes came from the peer.
    pub(crate) fn came(&mut self, bytes: &[u8], now: impl Fn() -> Instant + Copy) -> Result<(), Flood> {
        let mut rest = self.greeted(bytes);
        while !rest.is_empty() && self.spoken == Spoken::Http2 {
            if self.skip > 0 {
                let skipped = self.skip.min(rest.len());
                self.skip -= skipped;
                rest = rest.get(skipped..).unwrap_or_default();
                continue;
            }
            let wanted = (HEAD - self.have).min(rest.len());
            let (piece, behind) = rest.split_at(wanted);
            if let Some(place) = self.head.get_mut(self.have..self.have + wanted) {
                place.copy_from_slice(piece);
            }
            self.have += wanted;
            rest = behind;
            if self.have == HEAD {
                self.have = 0;
                self.frame(now)?;
            }
        }
        Ok(())
    }

    /// Finds out what is spoken; what is left are frames.
    fn greeted<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Spoken::Unknown(known) = self.spoken else { return bytes };
        let expected = PREFACE.get(known..).unwrap_or_default();
        let shared = expected.len().min(bytes.len());
        let (begin, rest) = bytes.split_at(shared);
        if !expected.starts_with(begin) {
            self.spoken = Spoken::Http1;
        } else if known + shared == PREFACE.len() {
            self.spoken = Spoken::Http2;
        } else {
            self.spoken = Spoken::Unknown(known + shared);
        }
        rest
    }

    fn frame(&mut self, now: impl Fn() -> Instant + Copy) -> Result<(), Flood> {
        let [high, middle, low, kind, flags, ..] = self.head;
        self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
        match kind {
            HEADERS => {
                self.frames.earn(OF_A_REQUEST);
                // Two requests pay for one that is taken back.
                self.half = !self.half;
                self.resets.earn(u32::from(!self.half));
                Ok(())
            }
            DATA if self.skip > 0 || flags & END_STREAM != 0 => Ok(()),
            RESET if !self.resets.pay(now) && Guard::Resets.stands() => Err(Flood::Resets),
            _ if !self.frames.pay(now) && Guard::Frames.stands() => Err(Flood::Frames),
            _ => Ok(()),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Budget {
    most: u32,
    each_second: u32,
}

/// What may still come.
#[derive(Debug)]
struct Account {
    budget: Budget,
    left: u32,
    refilled: Instant,
}

impl Account {
    fn new(budget: Budget, now: Instant) -> Self {
        Account { budget, left: budget.most, refilled: now }
    }

    fn earn(&mut self, more: u32) {
        self.left = self.left.saturating_add(more).min(self.budget.most);
    }

    /// The clock is read only when nothing is left.
    fn pay(&mut self, now: impl Fn() -> Instant) -> bool {
        if self.left == 0 {
            let now = now();
            let passed = now.saturating_duration_since(self.refilled);
            let more = passed.as_millis().saturating_mul(u128::from(self.budget.each_second)) / 1000;
            self.earn(u32::try_from(more).unwrap_or(u32::MAX));
            if self.left > 0 {
                self.refilled = now;
            }
        }
        let paid = self.left > 0;
        self.left = self.left.saturating_sub(1);
        paid
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let length_bytes = u32::try_from(length).unwrap().to_be_bytes();
        let mut bytes = length_bytes[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.resize(HEAD + length, 7);
        bytes
    }

    struct Peer {
        frames: Frames,
        now: Instant,
    }

    impl Peer {
        fn greeted() -> Self {
            let now = Instant::now();
            let mut peer = Peer { frames: Frames::new(now), now };
            peer.says(PREFACE).unwrap();
            peer
        }

        fn says(&mut self, bytes: &[u8]) -> Result<(), Flood> {
            let now = self.now;
            self.frames.came(bytes, || now)
        }

        /// How many of these come until it is a flood.
        fn until_flood(&mut self, bytes: &[u8]) -> (usize, Flood) {
            for count in 0..1_000_000 {
                if let Err(flood) = self.says(bytes) {
                    return (count, flood);
                }
            }
            panic!("never a flood");
        }
    }

    #[test]
    fn what_is_spoken_is_known_by_the_first_bytes_however_they_come() {
        for piece in [1, 5, 24] {
            let mut frames = Frames::new(Instant::now());
            for bytes in PREFACE.chunks(piece) {
                assert!(matches!(frames.spoken(), Spoken::Unknown(_)));
                frames.came(bytes, Instant::now).unwrap();
            }
            assert_eq!(frames.spoken(), Spoken::Http2);
        }
        for other in ["GET / HTTP/1.1\r\n", "PRI * HTTP/1.1\r\n", "POST / HTTP/1.1"] {
            let mut frames = Frames::new(Instant::now());
            frames.came(other.as_bytes(), Instant::now).unwrap();
            assert_eq!(frames.spoken(), Spoken::Http1, "{other}");
        }
    }

    #[test]
    fn frames_that_ask_for_nothing_are_a_flood_however_they_are_cut() {
        for kind in [2, 4, PING, WINDOW_UPDATE, 9, 0xfa] {
            let flood = frame(kind, 0, 8).repeat(5_000);
            for piece in [1, 7, 4096] {
                let mut peer = Peer::greeted();
                let refused = flood.chunks(piece).find_map(|bytes| peer.says(bytes).err());
                assert_eq!(refused, Some(Flood::Frames), "kind {kind} in pieces of {piece}");
            }
        }
        assert_eq!(Peer::greeted().until_flood(&frame(DATA, 0, 0)), (2_000, Flood::Frames));
    }

    #[test]
    fn the_answer_to_a_ping_does_not_pay_for_the_next() {
        let mut peer = Peer::greeted();
        let refused = (0..10_000).find(|_| {
            let refused = peer.says(&frame(PING, 0, 8)).is_err();
            peer.frames.sent(HEAD + 8);
            refused
        });
        assert!(refused.is_some());
    }

    #[test]
    fn a_client_that_asks_and_is_answered_may_ping_and_give_way() {
        let mut peer = Peer::greeted();
        for _ in 0..100_000 {
            peer.says(&frame(HEADERS, 5, 40)).unwrap();
            for kind in [PING, WINDOW_UPDATE, WINDOW_UPDATE] {
                peer.says(&frame(kind, 0, 8)).unwrap();
            }
        }
        // A long answer, in small pieces.
        for _ in 0..100_000 {
            peer.frames.sent(HEAD + 60);
            peer.says(&frame(PING, 0, 8)).unwrap();
            peer.says(&frame(WINDOW_UPDATE, 0, 4)).unwrap();
        }
    }

    #[test]
    fn one_that_takes_every_request_back_is_a_flood_and_one_that_takes_a_third_back_is_none() {
        let request = frame(HEADERS, 5, 40);
        let reset = frame(RESET, 0, 4);
        let (count, flood) = Peer::greeted().until_flood(&[request.clone(), reset.clone()].concat());
        assert_eq!(flood, Flood::Resets);
        assert!((300..500).contains(&count), "{count}");
        let mut peer = Peer::greeted();
        let a_third = [request.repeat(3), reset].concat();
        for _ in 0..100_000 {
            peer.says(&a_third).unwrap();
        }
    }

    #[test]
    fn time_pays_too() {
        let mut peer = Peer::greeted();
        let ping = frame(PING, 0, 8);
        let (all, _) = peer.until_flood(&ping);
        assert_eq!(all, 2_000);
        for _ in 0..10_000 {
            peer.now += Duration::from_millis(5);
            peer.says(&ping).unwrap();
        }
    }

    #[test]
    fn bodies_are_no_flood() {
        let mut peer = Peer::greeted();
        for _ in 0..100_000 {
            peer.says(&frame(DATA, 0, 100)).unwrap();
            peer.says(&frame(DATA, END_STREAM, 0)).unwrap();
        }
    }
}
