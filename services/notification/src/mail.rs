//! The texts: from what happened to a subject line and a body. Pure.

use std::collections::BTreeMap;

/// What is written about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    /// After signing up.
    Welcome,
    /// The order is confirmed.
    OrderConfirmed,
    /// The order is not to be had.
    OrderRejected,
    /// The buyer must act to pay.
    PaymentActionRequired,
    /// The order is cancelled.
    OrderCancelled,
    /// A parcel left.
    OrderShipped,
    /// A parcel arrived.
    OrderDelivered,
    /// Money is given back.
    OrderRefunded,
    /// Free text.
    Note,
}

/// A text, ready to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// One line without control characters.
    pub subject_line: String,
    /// Plain text.
    pub body: String,
}

/// Values for a text, by name; one that is missing is left out.
pub type Variables = BTreeMap<String, String>;

/// The longest subject line, in characters.
const MAX_SUBJECT_LINE: usize = 200;

/// Writes a text. `name` is who is greeted, `order` what it is about, and both may be empty.
pub fn render(template: Template, name: &str, order: &str, variables: &Variables) -> Text {
    let of = |key: &str| variables.get(key).map(String::as_str).unwrap_or_default();
    let number = order.strip_prefix("orders/").unwrap_or(order);
    let (subject_line, paragraphs) = match template {
        Template::Welcome => ("Welcome to Stoa".to_owned(), vec!["your account is ready.".to_owned()]),
        Template::OrderConfirmed => (
            format!("Your order {number} is confirmed"),
            vec![format!("we have received your payment and set aside your goods for order {number}.")],
        ),
        Template::OrderRejected => (
            format!("Your order {number} could not be placed"),
            vec![
                format!("we are sorry: your order {number} could not be placed."),
                of("reason").to_owned(),
                "Nothing is charged.".to_owned(),
            ],
        ),
        Template::PaymentActionRequired => (
            format!("Your order {number} waits for you"),
            vec![format!("your bank asks you to confirm the payment of order {number}:"), of("uri").to_owned()],
        ),
        Template::OrderCancelled if of("partial") == "true" => (
            format!("Part of your order {number} is cancelled"),
            vec![format!("what had not left of your order {number} is cancelled; what it cost is given back.")],
        ),
        Template::OrderCancelled => (
            format!("Your order {number} is cancelled"),
            vec![format!("your order {number} is cancelled. What you paid is given back.")],
        ),
        Template::OrderShipped => (
            format!("Your order {number} is on its way"),
            vec![
                format!("a parcel of your order {number} has left us."),
                tracking(of("carrier"), of("tracking_number")),
            ],
        ),
        Template::OrderDelivered => (
            format!("Your order {number} has arrived"),
            vec![format!("a parcel of your order {number} was delivered.")],
        ),
        Template::OrderRefunded => (
            format!("A refund for your order {number}"),
            vec![format!("we have given back money for what you returned of order {number}.")],
        ),
        Template::Note => (of("subject").to_owned(), vec![of("text").to_owned()]),
    };
    let greeting = if name.is_empty() { "Hello,".to_owned() } else { format!("Hello {},", one_line(name)) };
    let paragraphs = paragraphs.into_iter().filter(|paragraph| !paragraph.is_empty());
    let whole: Vec<String> =
        std::iter::once(greeting).chain(paragraphs).chain(std::iter::once("Stoa".to_owned())).collect();
    Text { subject_line: one_line(&subject_line), body: whole.join("\n\n") + "\n" }
}

fn tracking(carrier: &str, number: &str) -> String {
    match (carrier, number) {
        ("", _) => String::new(),
        (carrier, "") => format!("It is carried by {carrier}."),
        (carrier, number) => format!("It is carried by {carrier} under the number {number}."),
    }
}

/// A text that cannot begin another header or line.
fn one_line(text: &str) -> String {
    let plain = text.chars().map(|character| if character.is_control() { ' ' } else { character });
    plain.take(MAX_SUBJECT_LINE).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_text_names_the_reader_the_order_and_the_facts() {
        let facts = variables(&[("carrier", "Hermes"), ("tracking_number", "H-1")]);
        let text = render(Template::OrderShipped, "Ada", "orders/42", &facts);
        assert_eq!(text.subject_line, "Your order 42 is on its way");
        assert_eq!(
            text.body,
            "Hello Ada,\n\na parcel of your order 42 has left us.\n\n\
             It is carried by Hermes under the number H-1.\n\nStoa\n"
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let text = render(Template::OrderShipped, "", "orders/42", &Variables::new());
        assert_eq!(text.body, "Hello,\n\na parcel of your order 42 has left us.\n\nStoa\n");
    }

    #[test]
    fn no_value_can_start_another_header() {
        let facts = variables(&[("subject", "Hi\r\nBcc: all@example.com"), ("text", "x")]);
        let text = render(Template::Note, "Ada\r\nX: y", "", &facts);
        assert_eq!(text.subject_line, "Hi  Bcc: all@example.com");
        assert!(text.body.starts_with("Hello Ada  X: y,\n"));
    }
}
