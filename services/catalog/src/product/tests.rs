//! Given a product, when something is asked of it, then this happens.

use super::*;

fn eur(minor: i64) -> Money {
    Money::new(Currency::EUR, minor)
}

fn variant(sku: &str) -> VariantDraft {
    VariantDraft { sku: sku.to_owned(), prices: vec![eur(990)], ..VariantDraft::default() }
}

fn mug() -> Draft {
    Draft { title: "Mug".to_owned(), variants: vec![variant("MUG RED"), variant("MUG-BLUE")], ..Draft::default() }
}

fn created(draft: &Draft) -> Product {
    match decide(None, &Command::Create(draft.clone()), &BTreeMap::new()) {
        Ok(Some(Event::Created(product))) => product,
        other => panic!("{other:?}"),
    }
}

fn problem_fields(draft: Draft) -> Vec<String> {
    match decide(None, &Command::Create(draft), &BTreeMap::new()) {
        Err(Rejection::Invalid(problems)) => problems.into_iter().map(|problem| problem.field).collect(),
        other => panic!("{other:?}"),
    }
}

fn update(current: &Product, draft: Draft, fields: &[Field]) -> Result<Option<Event>, Rejection> {
    decide(Some(current), &Command::Update { draft, fields: fields.to_vec() }, &BTreeMap::new())
}

#[test]
fn a_new_product_is_active_and_stocked_and_its_variants_have_ids_of_their_skus() {
    let product = created(&mug());
    assert_eq!((product.state, product.stocked), (State::Active, true));
    let ids: Vec<&str> = product.variants.iter().map(|variant| variant.id.as_str()).collect();
    assert_eq!(ids, ["MUG-RED", "MUG-BLUE"]);
}

#[test]
fn two_skus_that_read_alike_get_two_ids() {
    let product = created(&Draft { variants: vec![variant("A B"), variant("A-B")], ..mug() });
    let ids: Vec<&str> = product.variants.iter().map(|variant| variant.id.as_str()).collect();
    assert_eq!(ids, ["A-B", "A-B-2"]);
}

#[test]
fn what_is_no_sound_product_is_named_field_by_field() {
    assert_eq!(problem_fields(Draft { title: " ".to_owned(), ..mug() }), ["title"]);
    assert_eq!(problem_fields(Draft { variants: vec![], ..mug() }), ["variants"]);
    assert_eq!(problem_fields(Draft { variants: vec![variant("A"), variant("A")], ..mug() }), ["variants[1].sku"]);
    let with = |change: fn(&mut VariantDraft)| {
        let mut draft = mug();
        draft.variants.iter_mut().take(1).for_each(change);
        problem_fields(draft)
    };
    assert_eq!(with(|variant| variant.prices.clear()), ["variants[0].prices"]);
    assert_eq!(with(|variant| variant.prices.push(eur(1))), ["variants[0].prices"]);
    assert_eq!(with(|variant| variant.prices = vec![eur(-1)]), ["variants[0].prices"]);
    assert_eq!(with(|variant| variant.list_prices = vec![eur(1), eur(2)]), ["variants[0].list_prices"]);
    let red = Choice { name: "color".to_owned(), value: "red".to_owned() };
    let twice = Draft {
        variants: vec![
            VariantDraft { options: vec![red.clone()], ..variant("A") },
            VariantDraft { options: vec![red.clone()], ..variant("B") },
            VariantDraft { options: vec![red.clone(), Choice { value: "blue".to_owned(), ..red }], ..variant("C") },
        ],
        ..mug()
    };
    assert_eq!(problem_fields(twice), ["variants[1].options", "variants[2].options"]);
}

#[test]
fn a_product_without_stock_has_no_stocked_variant() {
    let postage = Draft { stocked: Some(false), ..mug() };
    let product = created(&postage);
    assert!(!product.stocked && product.variants.iter().all(|variant| !variant.stocked));
    let mut contradicting = postage;
    contradicting.variants[0].stocked = Some(true);
    assert_eq!(problem_fields(contradicting), ["variants[0].stocked"]);
    let mut card = mug();
    card.variants[0].stocked = Some(false);
    let product = created(&card);
    assert_eq!((product.stocked, product.variants[0].stocked, product.variants[1].stocked), (true, false, true));
}

#[test]
fn another_products_sku_is_refused() {
    let taken = BTreeMap::from([("MUG-BLUE".to_owned(), "products/cup".to_owned())]);
    let refused = decide(None, &Command::Create(mug()), &taken);
    let (sku, product) = ("MUG-BLUE".to_owned(), "products/cup".to_owned());
    assert_eq!(refused, Err(Rejection::SkuTaken { sku, product }));
}

#[test]
fn a_product_is_created_once_and_updated_only_when_it_is_there() {
    let product = created(&mug());
    assert_eq!(decide(Some(&product), &Command::Create(mug()), &BTreeMap::new()), Err(Rejection::Exists));
    let command = Command::Update { draft: mug(), fields: vec![] };
    assert_eq!(decide(None, &command, &BTreeMap::new()), Err(Rejection::Missing));
}

#[test]
fn the_same_product_again_changes_nothing_whatever_the_order_of_its_prices() {
    let usd = Money::new(Currency::USD, 1090);
    let mut draft = mug();
    draft.variants[0].prices = vec![usd, eur(990)];
    let product = created(&draft);
    draft.variants[0].prices.reverse();
    assert_eq!(decide(Some(&product), &Command::Replace(draft), &BTreeMap::new()), Ok(None));
}

#[test]
fn only_the_named_fields_change_and_are_named_in_the_event() {
    let product = created(&mug());
    let draft = Draft { title: "Cup".to_owned(), brand: "Kiln".to_owned(), ..Draft::default() };
    let Ok(Some(Event::Updated { product: after, changed })) = update(&product, draft.clone(), &[Field::Title]) else {
        panic!("not updated");
    };
    assert_eq!((after.title.as_str(), after.brand.as_str(), changed), ("Cup", "", vec![Field::Title]));
    assert_eq!(after.variants, product.variants);
    assert_eq!(update(&after, draft, &[Field::Title]), Ok(None));
}

#[test]
fn a_replaced_list_of_variants_keeps_the_ids_of_the_skus_it_keeps() {
    let mut first = mug();
    first.variants[0].id = "red".to_owned();
    let product = created(&first);
    let Ok(Some(event)) = update(&product, mug(), &[Field::Variants]) else {
        assert_eq!(update(&product, mug(), &[Field::Variants]), Ok(None), "the id is kept, so nothing changes");
        return;
    };
    panic!("{event:?}");
}

#[test]
fn stock_of_the_whole_product_is_the_variants_too() {
    let product = created(&mug());
    let draft = Draft { stocked: Some(false), ..Draft::default() };
    let Ok(Some(Event::Updated { product, changed })) = update(&product, draft, &[Field::Stocked]) else {
        panic!("not updated");
    };
    assert!(!product.stocked && product.variants.iter().all(|variant| !variant.stocked));
    assert_eq!(changed, [Field::Variants, Field::Stocked]);
}

#[test]
fn an_import_does_not_bring_an_archived_product_back_unless_it_says_so() {
    let archived = Product { state: State::Archived, ..created(&mug()) };
    assert_eq!(decide(Some(&archived), &Command::Replace(mug()), &BTreeMap::new()), Ok(None));
    let active = Command::Replace(Draft { state: Some(State::Active), ..mug() });
    let decided = decide(Some(&archived), &active, &BTreeMap::new());
    assert!(matches!(decided, Ok(Some(Event::Updated { changed, .. })) if changed == [Field::State]));
}

#[test]
fn a_price_is_found_by_its_currency() {
    let prices = [eur(990), Money::new(Currency::USD, 1090)];
    assert_eq!(price_in(&prices, Currency::USD).map(|price| price.minor), Some(1090));
    assert_eq!(price_in(&prices, Currency::GBP), None);
}

#[test]
fn a_line_is_called_by_product_and_what_sets_the_variant_apart() {
    let mut draft = mug();
    draft.variants[0].options = vec![
        Choice { name: "color".to_owned(), value: "red".to_owned() },
        Choice { name: "size".to_owned(), value: "L".to_owned() },
    ];
    draft.variants[1].title = "Blue".to_owned();
    let product = created(&draft);
    let titles: Vec<String> = product.variants.iter().map(|variant| product.line_title(variant)).collect();
    assert_eq!(titles, ["Mug (red, L)", "Mug (Blue)"]);
    let plain = created(&mug());
    assert_eq!(plain.line_title(&plain.variants[0]), "Mug");
}
