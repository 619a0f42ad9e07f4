//! The domain of sessions: what a shown refresh token means. Pure.

use std::time::Duration;

use contract::Role;
use jiff::Timestamp;

/// Where a session stands in the store; that it has expired is a matter of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its token is good.
    Active,
    /// It was ended.
    Revoked,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its name, which is its stream.
    pub name: String,
    /// `users/{user}` or `guests/{guest}`.
    pub principal: String,
    /// What its tokens allow.
    pub role: Role,
    /// Where it stands.
    pub state: State,
    /// Why it was revoked, as stored; empty if it was not.
    pub revoke_reason: String,
    /// Version of its stream.
    pub version: u64,
    /// When it began.
    pub create_time: Timestamp,
    /// When it was last refreshed.
    pub refresh_time: Timestamp,
    /// When it ends unless refreshed.
    pub expire_time: Timestamp,
}

/// What is kept of the tokens of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// Generation of the good token.
    pub generation: u32,
    /// Hash of the good token.
    pub token_hash: [u8; 32],
    /// Hash of the token it replaced; nothing in the first generation.
    pub spent_hash: Option<[u8; 32]>,
    /// When it replaced it.
    pub rotate_time: Timestamp,
}

/// A token this service once made, as somebody shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its generation.
    pub generation: u32,
    /// Hash of its text.
    pub hash: [u8; 32],
    /// When it was made.
    pub issue_time: Timestamp,
    /// Whether it is a guest's, whose session is stored no sooner than its first refresh.
    pub guest: bool,
}

/// How long things last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// A guest's session that was never refreshed.
    pub guest: Duration,
    /// The time in which a spent token gets its successor again.
    pub replay: Duration,
}

/// What a shown token means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is good, and its session is not stored yet.
    First,
    /// It is good.
    Rotate,
    /// It was spent a moment ago and the answer may have been lost: the same answer again.
    Again,
    /// It was spent before; somebody has a copy, so the session ends for everybody.
    Reused,
    /// Its session was ended.
    Revoked,
    /// Its session was not refreshed in time.
    Expired,
}

/// Decides about a shown token.
pub fn judge(
    session: Option<&Session>,
    family: Option<&Family>,
    shown: &Shown,
    now: Timestamp,
    windows: &Windows,
) -> Verdict {
    let Some(session) = session else {
        let fresh = shown.guest && shown.generation == 0;
        return match fresh {
            true if within(shown.issue_time, now, windows.guest) => Verdict::First,
            true => Verdict::Expired,
            // Made by us and unknown here: the store is older than the token. What it forgot stays refused.
            false => Verdict::Revoked,
        };
    };
    let family = match (session.state, family) {
        // What was kept of the tokens of a session that expired may be gone.
        (State::Active, _) if session.expire_time <= now => return Verdict::Expired,
        (State::Active, Some(family)) => family,
        (State::Active, None) | (State::Revoked, _) => return Verdict::Revoked,
    };
    if shown.generation == family.generation && shown.hash == family.token_hash {
        return Verdict::Rotate;
    }
    let just_spent = family.spent_hash == Some(shown.hash) && within(family.rotate_time, now, windows.replay);
    if just_spent { Verdict::Again } else { Verdict::Reused }
}

fn within(since: Timestamp, now: Timestamp, window: Duration) -> bool {
    Duration::try_from(now.duration_since(since)).unwrap_or_default() <= window
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOWS: Windows = Windows { guest: Duration::from_secs(1000), replay: Duration::from_secs(10) };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn session(state: State) -> Session {
        Session {
            name: "users/1/sessions/2".to_owned(),
            principal: "users/1".to_owned(),
            role: Role::Customer,
            state,
            revoke_reason: String::new(),
            version: 1,
            create_time: at(0),
            refresh_time: at(0),
            expire_time: at(500),
        }
    }

    fn family() -> Family {
        Family { generation: 2, token_hash: [2; 32], spent_hash: Some([1; 32]), rotate_time: at(100) }
    }

    fn shown(generation: u32) -> Shown {
        Shown { generation, hash: [u8::try_from(generation).unwrap(); 32], issue_time: at(0), guest: false }
    }

    fn judged(shown: &Shown, now: i64) -> Verdict {
        judge(Some(&session(State::Active)), Some(&family()), shown, at(now), &WINDOWS)
    }

    #[test]
    fn the_good_token_is_rotated_until_the_session_expires() {
        assert_eq!(judged(&shown(2), 499), Verdict::Rotate);
        assert_eq!(judged(&shown(2), 500), Verdict::Expired);
        let swept = judge(Some(&session(State::Active)), None, &shown(2), at(500), &WINDOWS);
        assert_eq!(swept, Verdict::Expired);
    }

    #[test]
    fn the_token_spent_last_is_answered_again_for_a_moment_and_ends_the_session_then() {
        assert_eq!(judged(&shown(1), 110), Verdict::Again);
        assert_eq!(judged(&shown(1), 111), Verdict::Reused);
        assert_eq!(judged(&shown(0), 101), Verdict::Reused);
        assert_eq!(judged(&shown(3), 101), Verdict::Reused);
        let forged = Shown { hash: [9; 32], ..shown(2) };
        assert_eq!(judged(&forged, 101), Verdict::Reused);
    }

    #[test]
    fn a_revoked_session_takes_no_token() {
        for generation in 0..4 {
            let revoked = session(State::Revoked);
            let verdict = judge(Some(&revoked), Some(&family()), &shown(generation), at(101), &WINDOWS);
            assert_eq!(verdict, Verdict::Revoked);
            let verdict = judge(Some(&session(State::Active)), None, &shown(generation), at(101), &WINDOWS);
            assert_eq!(verdict, Verdict::Revoked);
        }
    }

    #[test]
    fn an_unknown_session_is_a_guests_first_one_or_refused() {
        let guest = Shown { guest: true, ..shown(0) };
        assert_eq!(judge(None, None, &guest, at(1000), &WINDOWS), Verdict::First);
        assert_eq!(judge(None, None, &guest, at(1001), &WINDOWS), Verdict::Expired);
        assert_eq!(judge(None, None, &Shown { generation: 1, ..guest }, at(10), &WINDOWS), Verdict::Revoked);
        assert_eq!(judge(None, None, &shown(0), at(10), &WINDOWS), Verdict::Revoked);
    }
}
