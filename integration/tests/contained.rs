//! Containment: who has all that orderview's process has can change nothing in payment or identity, and leaves a record each time

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::between::{Caller, Claims};
use integration::certified::Dialer;
use integration::fleet::GATEWAY;
use integration::shopper::Shopper;
use integration::sold_out::SKU;
use integration::{Fleet, command_line, grpc, until};
use tonic::Code;

/// The process that was taken over: its certificate, and the key that all processes of the fleet have.
const THIEF: &str = "orderview";

/// Methods, each with who may call it.
type Methods = &'static [(&'static str, &'static str)];

/// What it is after, by service, and who may call it: ordering by itself, or the gateway for an operator.
const MUTATIONS: &[(&str, &str, Methods)] = &[
    (
        "payment",
        "stoa.payment.v1.PaymentService",
        &[
            ("AuthorizePayment", "ordering"),
            ("CapturePayment", "ordering"),
            ("CancelPayment", "ordering"),
            ("RefundPayment", "ordering"),
            ("ReconcilePayment", GATEWAY),
            ("ResolveInDoubt", GATEWAY),
            ("IngestWebhook", GATEWAY),
        ],
    ),
    ("payment", OPERATIONS, OPERATING),
    (
        "identity",
        "stoa.identity.v1.IdentityService",
        &[
            ("CreateUser", GATEWAY),
            ("ImportUsers", GATEWAY),
            ("EraseUser", GATEWAY),
            ("SignIn", GATEWAY),
            ("RefreshSession", GATEWAY),
            ("CreateGuestToken", GATEWAY),
            ("RevokeSession", GATEWAY),
            ("RotateSigningKey", GATEWAY),
        ],
    ),
    ("identity", OPERATIONS, OPERATING),
];

/// What every service has for operators.
const OPERATIONS: &str = "stoa.operations.v1.OperationsService";
const OPERATING: Methods = &[
    ("RetrySagaStep", GATEWAY),
    ("ForceCompensate", GATEWAY),
    ("RedriveDeadLetters", GATEWAY),
    ("RebuildProjection", GATEWAY),
];

/// Until a line that was written is read.
const TOLD: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_all_that_orderview_has_nothing_is_changed_in_payment_or_identity_and_each_attempt_is_told() -> Result<()>
{
    let fleet = Fleet::start(command_line::binary()?, None).await?;
    fleet.operator().await?.stock(SKU, 20, 10).await?;
    complete(&fleet).await?;
    let mut attempts = 0;
    for (service, contract, methods) in MUTATIONS {
        let (address, folder) = (fleet.address((service, 0))?, fleet.certificates());
        let thief = Caller::connect(&Dialer::named(&folder, THIEF)?, address).await?;
        for (method, allowed) in *methods {
            let path = format!("/{contract}/{method}");
            let rightful = Caller::connect(&Dialer::named(&folder, allowed)?, address).await?;
            // That it is the caller who is refused, and not a method that nobody can call.
            let token = Claims::of(allowed, service)?.speaking_for("users/somebody", "operator").signed();
            let code = rightful.call(&path, Some(&token)).await?;
            ensure!(!refused(code), "{path} is closed to {allowed}: {code:?}");
            for (name, token, expected) in tokens(service)? {
                let before = records(&fleet, service, &path);
                let code = thief.call(&path, token.as_deref()).await?;
                ensure!(code == expected, "{path} with {name}: {code:?}, not {expected:?}");
                let one = until(TOLD, "the record", async || {
                    let now = records(&fleet, service, &path);
                    Ok((now > before).then_some(now == before + 1))
                });
                ensure!(one.await.with_context(|| format!("{path} with {name}"))?, "{path} with {name}: told twice");
                attempts += 1;
            }
        }
    }
    println!("measured: {attempts} attempts, each refused and told once");
    // Nobody else was shut out meanwhile, and nothing was changed.
    let mut buyer = Shopper::customer_over(fleet.client()).await?;
    let order = buyer.buy("EUR", SKU, 1, "tok_ok").await?;
    ensure!(order["state"] == "ORDER_STATE_CONFIRMED", "{order}");
    let ledger = fleet.provider.ledger().await?;
    ensure!(ledger.authorized().count() == 1, "{} authorisations stand", ledger.authorized().count());
    fleet.audit().await.map(drop)
}

/// What the thief can show: nothing, tokens of its own, and tokens of others that it signs with the fleet's key.
fn tokens(callee: &str) -> Result<Vec<(&'static str, Option<String>, Code)>> {
    let own = Claims::of(THIEF, callee)?;
    let operator = |caller| anyhow::Ok(Claims::of(caller, callee)?.speaking_for("users/somebody", "operator"));
    // Whom payment and identity are called by, and they themselves.
    let others = ["ordering", GATEWAY, "operator", "payment", "identity", "audit"];
    let mut tokens = vec![
        ("no token", None, Code::Unauthenticated),
        ("its own name", Some(own.signed()), Code::PermissionDenied),
        (
            "its own name, for a customer",
            Some(own.clone().speaking_for("users/somebody", "customer").signed()),
            Code::PermissionDenied,
        ),
        ("its own name, for an operator", Some(operator(THIEF)?.signed()), Code::PermissionDenied),
        ("what it would show the catalogue", Some(Claims::of(THIEF, "catalog")?.signed()), Code::Unauthenticated),
    ];
    for other in others {
        tokens.push((other, Some(operator(other)?.signed()), Code::PermissionDenied));
    }
    Ok(tokens)
}

fn refused(code: Code) -> bool {
    matches!(code, Code::PermissionDenied | Code::Unauthenticated)
}

/// How often a service told of a denied call of this method.
fn records(fleet: &Fleet, service: &'static str, path: &str) -> usize {
    let said = fleet.tail((service, 0), 400);
    said.lines().filter(|line| line.contains("audit") && line.contains("denied") && line.contains(path)).count()
}

/// The table above has every method of these contracts that changes something.
async fn complete(fleet: &Fleet) -> Result<()> {
    let client = grpc::Client::connect(fleet.address((GATEWAY, 0))?).await?;
    let listed: BTreeMap<&str, BTreeSet<&str>> =
        MUTATIONS.iter().map(|(_, contract, methods)| (*contract, methods.iter().map(|it| it.0).collect())).collect();
    for (contract, listed) in listed {
        let service = client.pool().get_service_by_name(contract).with_context(|| format!("no {contract}"))?;
        let methods: Vec<_> = service.methods().collect();
        let known: BTreeSet<&str> = methods.iter().filter(|it| changes(it)).map(|it| it.name()).collect();
        ensure!(known == listed, "{contract} changes something by {known:?}, and tried are {listed:?}");
    }
    Ok(())
}

/// Whether a method does not promise to have no effect.
fn changes(method: &prost_reflect::MethodDescriptor) -> bool {
    let options = method.options();
    let level = options.get_field_by_name("idempotency_level");
    // `NO_SIDE_EFFECTS` of `google.protobuf.MethodOptions.IdempotencyLevel`.
    level.is_none_or(|level| level.as_enum_number() != Some(1))
}
