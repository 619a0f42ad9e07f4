//! The codec of servers: a request that breaks a field rule never reaches a handler.

use std::marker::PhantomData;

use ::contract::{Guard, Validate, Violation};
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

use crate::google::rpc::{self, BadRequest, bad_request::FieldViolation};
use crate::wkt::Any;

/// Protobuf, with the field rules checked between decoding and the handler.
#[derive(Debug)]
pub struct Validating<Encode, Decode>(PhantomData<(Encode, Decode)>);

impl<Encode, Decode> Default for Validating<Encode, Decode> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Encode, Decode> Codec for Validating<Encode, Decode>
where
    Encode: Message + Send + 'static,
    Decode: Message + Default + Validate + Send + 'static,
{
    type Encode = Encode;
    type Decode = Decode;
    type Encoder = ProstEncoder<Encode>;
    type Decoder = ValidatingDecoder<Decode>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ValidatingDecoder(PhantomData)
    }
}

/// The decoding half of [`Validating`].
#[derive(Debug)]
pub struct ValidatingDecoder<Decode>(PhantomData<Decode>);

impl<Decode: Message + Default + Validate> Decoder for ValidatingDecoder<Decode> {
    type Item = Decode;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Decode>, Status> {
        let message = Decode::decode(buffer)
            .map_err(|error| Status::invalid_argument(format!("the request cannot be decoded: {error}")))?;
        match message.violations() {
            violations if violations.is_empty() || !Guard::FieldRules.stands() => Ok(Some(message)),
            violations => Err(invalid_argument(&violations)),
        }
    }
}

/// The status of a request that breaks field rules: all of them, each by its field.
pub fn invalid_argument(violations: &[Violation]) -> Status {
    let code = tonic::Code::InvalidArgument;
    let message = match violations {
        [] => "the request is not valid".to_owned(),
        [only] => format!("{} {}", only.field, only.message),
        [first, rest @ ..] => format!("{} {} (and {} more)", first.field, first.message, rest.len()),
    };
    let field_violations = violations.iter().map(field_violation).collect();
    let details = rpc::Status {
        code: code as i32,
        message: message.clone(),
        details: vec![Any::pack(&BadRequest { field_violations })],
    };
    Status::with_details(code, message, details.encode_to_vec().into())
}

fn field_violation(violation: &Violation) -> FieldViolation {
    FieldViolation {
        field: violation.field.clone(),
        description: violation.message.clone(),
        reason: violation.rule.to_uppercase().replace('.', "_"),
        ..FieldViolation::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::storefront::v1::storefront_service_client::StorefrontServiceClient;
    use crate::storefront::v1::storefront_service_server::{StorefrontService, StorefrontServiceServer};
    use crate::storefront::v1::{
        CheckoutPage, GetCheckoutPageRequest, GetHomeRequest, GetProductPageRequest, HomePage, ProductPage,
    };

    struct Storefront;

    #[tonic::async_trait]
    impl StorefrontService for Storefront {
        async fn get_home(&self, _: tonic::Request<GetHomeRequest>) -> Result<tonic::Response<HomePage>, Status> {
            Ok(tonic::Response::new(HomePage::default()))
        }

        async fn get_product_page(
            &self,
            _: tonic::Request<GetProductPageRequest>,
        ) -> Result<tonic::Response<ProductPage>, Status> {
            Ok(tonic::Response::new(ProductPage::default()))
        }

        async fn get_checkout_page(
            &self,
            _: tonic::Request<GetCheckoutPageRequest>,
        ) -> Result<tonic::Response<CheckoutPage>, Status> {
            Ok(tonic::Response::new(CheckoutPage::default()))
        }
    }

    #[tokio::test]
    async fn a_request_that_breaks_a_rule_never_reaches_its_handler() {
        let mut client = StorefrontServiceClient::new(StorefrontServiceServer::new(Storefront));
        let home = |currency_code: &str| GetHomeRequest { currency_code: currency_code.to_owned() };
        client.get_home(home("")).await.unwrap();
        client.get_home(home("EUR")).await.unwrap();

        let status = client.get_home(home("euro")).await.unwrap_err();

        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        let details = rpc::Status::decode(status.details()).unwrap();
        let bad_request: BadRequest = details.details[0].unpack().unwrap().unwrap();
        assert_eq!(bad_request.field_violations[0].field, "currency_code");
        assert_eq!(bad_request.field_violations[0].reason, "STRING_PATTERN");
    }

    #[test]
    fn every_violation_is_told_with_its_field() {
        let violation = |field: &str| Violation {
            field: field.to_owned(),
            rule: "int32.gt",
            message: "must be greater than 0".to_owned(),
        };
        let status = invalid_argument(&[violation("items[3].quantity"), violation("page_size")]);
        assert_eq!(status.message(), "items[3].quantity must be greater than 0 (and 1 more)");
        let details = rpc::Status::decode(status.details()).unwrap();
        assert_eq!((details.code, details.message.as_str()), (3, status.message()));
        let bad_request: BadRequest = details.details[0].unpack().unwrap().unwrap();
        assert_eq!(bad_request.field_violations[0].field, "items[3].quantity");
        assert_eq!(bad_request.field_violations[0].reason, "INT32_GT");
        assert_eq!(bad_request.field_violations[1].field, "page_size");
    }
}
