//! Derived rows against the logs they come from, as each service compares them itself.

use contracts::operations::v1::VerifyProjectionRequest;
use contracts::operations::v1::operations_service_client::OperationsServiceClient;
use futures_util::future::join_all;

use super::findings::{Findings, Invariant};
use crate::shop::{SERVICES, Shop, Unreached};

/// Has every service compare its tables with its log, all at the same time.
pub(crate) async fn judge(shop: &Shop) -> anyhow::Result<Findings> {
    let (mut findings, mut rows) = (Findings::default(), 0);
    let comparing = SERVICES.map(|service| {
        let mut client = OperationsServiceClient::new(shop.channel(service));
        let name = format!("services/{service}/projections/-");
        let request = Shop::by_operator(VerifyProjectionRequest { name });
        async move { (service, client.verify_projection(request).await) }
    });
    for (service, compared) in join_all(comparing).await {
        match compared {
            Ok(reply) => {
                let reply = reply.into_inner();
                rows += reply.row_count;
                for it in reply.differences {
                    let what = match (it.expected.is_empty(), it.found.is_empty()) {
                        (true, _) => "is unknown to the log".to_owned(),
                        (_, true) => "is missing".to_owned(),
                        (false, false) => format!("is not what the log says: {}", it.found),
                    };
                    findings.broken(Invariant::I6, &format!("{service} {}/{}", it.table, it.key), what);
                }
            }
            Err(status) if server::status::unreached(&status) => return Err(Unreached::or_said(service, &status)),
            Err(status) => findings.broken(Invariant::I6, service, status.message()),
        }
    }
    findings.checked(Invariant::I6, format!("{rows} derived rows as the logs say"));
    Ok(findings)
}
