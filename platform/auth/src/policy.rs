//! Whether an identity may call a method, decided from the contract's policy alone.
//!
//! Two questions, both must be answered yes: may this process call it, and is the person it speaks for enough. Whether the
//! person owns the resource is a third, which the owning service answers.

use contract::{Access, Guard, Method, Role};

use crate::{Identity, Principal, speaks_for_people};

/// Why a call is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The call proved no identity of a process at all.
    #[error("the caller is unknown")]
    UnknownCaller,
    /// The connection is another process's than the call says.
    #[error("the certificate is another process's")]
    OtherProcess,
    /// This process is not among the method's callers.
    #[error("this caller may not call the method")]
    CallerNotAllowed,
    /// The method needs a person and there is none.
    #[error("a token is needed")]
    TokenNeeded,
    /// The person's role is not enough.
    #[error("the role {needed:?} is needed")]
    RoleTooLow {
        /// The least that would do.
        needed: Role,
    },
}

impl Denied {
    /// Whether showing a token could help: `UNAUTHENTICATED`, else `PERMISSION_DENIED`.
    pub fn is_unauthenticated(self) -> bool {
        match self {
            Denied::UnknownCaller | Denied::TokenNeeded => true,
            Denied::OtherProcess | Denied::CallerNotAllowed | Denied::RoleTooLow { .. } => false,
        }
    }
}

/// Decides a call from the method's policy; what no rule allows is denied.
pub fn decide(method: &Method, identity: &Identity) -> Result<(), Denied> {
    if !Guard::Policy.stands() {
        return Ok(());
    }
    let policy = &method.policy;
    let caller = identity.caller.as_ref();
    if caller.is_empty() {
        return Err(Denied::UnknownCaller);
    }
    let listed = policy.callers.contains(&caller);
    let needed = match policy.access {
        Access::Internal => {
            return if listed { Ok(()) } else { Err(Denied::CallerNotAllowed) };
        }
        Access::Public => None,
        Access::Guest => Some(Role::Guest),
        Access::Customer => Some(Role::Customer),
        Access::Operator => Some(Role::Operator),
    };
    if !listed && !speaks_for_people(caller) {
        return Err(Denied::CallerNotAllowed);
    }
    match (needed, &identity.principal) {
        (None, _) => Ok(()),
        (Some(needed), Principal::User(subject)) if subject.role < needed => Err(Denied::RoleTooLow { needed }),
        (Some(_), Principal::User(_)) => Ok(()),
        // A service that is trusted to call the method by itself does so without a person; who speaks for people never does.
        (Some(_), Principal::Anonymous) if listed && !speaks_for_people(caller) => Ok(()),
        (Some(_), Principal::Anonymous) => Err(Denied::TokenNeeded),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Subject;
    use contract::{Idempotency, Policy};
    use std::borrow::Cow;
    use std::time::Duration;

    fn method(access: Access) -> Method {
        Method {
            service: "stoa.test.v1.TestService",
            name: "Test",
            path: "/stoa.test.v1.TestService/Test",
            owner: "test",
            input: "stoa.test.v1.TestRequest",
            output: "stoa.test.v1.TestResponse",
            client_streaming: false,
            server_streaming: false,
            policy: Policy { access, owner: false, callers: &["ordering"] },
            idempotency: Idempotency::Unknown,
            deadline: Duration::from_secs(1),
            request_id: false,
            secret_reply: false,
            max_request_bytes: 1024,
            stale_for: Duration::ZERO,
            http: &[],
        }
    }

    fn principal(role: Option<Role>) -> Principal {
        role.map_or(Principal::Anonymous, |role| {
            Principal::User(Subject { id: "users/1".to_owned(), role, session: String::new() })
        })
    }

    #[test]
    fn the_policy_matrix_is_what_the_contract_promises() {
        use Access::{Customer, Guest, Internal, Operator, Public};
        use Denied::{CallerNotAllowed, RoleTooLow, TokenNeeded, UnknownCaller};
        let low = |needed| Err(RoleTooLow { needed });
        let roles = [None, Some(Role::Guest), Some(Role::Customer), Some(Role::Operator)];
        let matrix = [
            // caller, access, then: nobody, guest, customer, operator
            ("gateway", Public, [Ok(()), Ok(()), Ok(()), Ok(())]),
            ("gateway", Guest, [Err(TokenNeeded), Ok(()), Ok(()), Ok(())]),
            ("gateway", Customer, [Err(TokenNeeded), low(Role::Customer), Ok(()), Ok(())]),
            ("gateway", Operator, [Err(TokenNeeded), low(Role::Operator), low(Role::Operator), Ok(())]),
            ("gateway", Internal, [Err(CallerNotAllowed); 4]),
            ("operator", Public, [Ok(()); 4]),
            ("operator", Operator, [Err(TokenNeeded), low(Role::Operator), low(Role::Operator), Ok(())]),
            ("operator", Internal, [Err(CallerNotAllowed); 4]),
            ("ordering", Public, [Ok(()); 4]),
            ("ordering", Guest, [Ok(()); 4]),
            ("ordering", Customer, [Ok(()), low(Role::Customer), Ok(()), Ok(())]),
            ("ordering", Operator, [Ok(()), low(Role::Operator), low(Role::Operator), Ok(())]),
            ("ordering", Internal, [Ok(()); 4]),
            ("shipping", Public, [Err(CallerNotAllowed); 4]),
            ("shipping", Guest, [Err(CallerNotAllowed); 4]),
            ("shipping", Customer, [Err(CallerNotAllowed); 4]),
            ("shipping", Operator, [Err(CallerNotAllowed); 4]),
            ("shipping", Internal, [Err(CallerNotAllowed); 4]),
            ("", Public, [Err(UnknownCaller); 4]),
            ("", Operator, [Err(UnknownCaller); 4]),
            ("", Internal, [Err(UnknownCaller); 4]),
        ];
        for (caller, access, answers) in matrix {
            for (role, answer) in roles.into_iter().zip(answers) {
                let identity = Identity { caller: Cow::Borrowed(caller), principal: principal(role) };
                assert_eq!(decide(&method(access), &identity), answer, "{caller} {access:?} {role:?}");
            }
        }
    }

    #[test]
    fn only_what_a_token_could_change_is_unauthenticated() {
        assert!(Denied::UnknownCaller.is_unauthenticated());
        assert!(Denied::TokenNeeded.is_unauthenticated());
        assert!(!Denied::OtherProcess.is_unauthenticated());
        assert!(!Denied::CallerNotAllowed.is_unauthenticated());
        assert!(!Denied::RoleTooLow { needed: Role::Operator }.is_unauthenticated());
    }
}
