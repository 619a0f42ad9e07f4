//! What a newcomer is told once.

use std::net::SocketAddr;
use std::path::Path;

/// The lines of a first start: the operator's password, if it was made up and is shown only here, and where to begin.
pub(crate) fn first_start(address: SocketAddr, data: &Path, password: Option<&identity::Secret>) -> String {
    let (email, data) = (identity::OPERATOR_EMAIL, data.display());
    let operator = match password {
        Some(password) => format!("{email}, password: {}\nKeep it: it is not shown again.", password.expose()),
        None => format!("{email}, with the password that was given."),
    };
    format!(
        "
The operator is {operator}
Everything the shop keeps is in {data}.

Browse, take a cart, buy (the README has the whole tour):
  curl -s 'http://{address}/v1/products?pageSize=3'
  curl -s 'http://{address}/v1/products:search?query=mug'
  TOKEN=$(curl -s -X POST http://{address}/v1/sessions:guest -d '{{}}' | sed 's/.*\"accessToken\":\"\\([^\"]*\\)\".*/\\1/')
  curl -s -X POST http://{address}/v1/carts:getOrCreate -H \"authorization: Bearer $TOKEN\" -d '{{\"currencyCode\":\"EUR\"}}'
The same by gRPC, no files needed:
  grpcurl -plaintext {address} list
  grpcurl -plaintext {address} describe stoa.ordering.v1.OrderingService.PlaceOrder
Look behind the counter:
  stoa audit --data {data}
"
    )
}
