//! What a product is and what may be done to it: pure, without a clock, a store or a wire.

use std::collections::{BTreeMap, BTreeSet};

use contract::{Currency, Money};

#[cfg(test)]
mod tests;

/// Variants a product may have.
pub const MOST_VARIANTS: usize = 200;

/// A product as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// What a shopper calls it.
    pub title: String,
    /// Plain text.
    pub description: String,
    /// Who makes it.
    pub brand: String,
    /// `categories/{category}`.
    pub categories: Vec<String>,
    /// Its forms, at least one.
    pub variants: Vec<Variant>,
    /// False where none of its variants has stock.
    pub stocked: bool,
    /// Whether it is for sale.
    pub state: State,
    /// Address of an image.
    pub image_uri: String,
    /// Further facts.
    pub attributes: BTreeMap<String, String>,
    /// Id in the system it was imported from.
    pub external_id: String,
}

/// One form of a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Last part of its name, unique in the product.
    pub id: String,
    /// Stock keeping unit, unique in the shop.
    pub sku: String,
    /// What sets it apart.
    pub title: String,
    /// Choices such as colour and size.
    pub options: Vec<Choice>,
    /// Price of one, sorted by currency, at least one.
    pub prices: Vec<Money>,
    /// Price before a reduction, sorted by currency.
    pub list_prices: Vec<Money>,
    /// False for what has no stock.
    pub stocked: bool,
    /// Weight in grams.
    pub weight_grams: i32,
    /// Tax in hundredths of a per cent.
    pub tax_basis_points: i32,
    /// Address of an image.
    pub image_uri: String,
}

/// One choice that a variant is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Choice {
    /// What is chosen.
    pub name: String,
    /// The choice.
    pub value: String,
}

/// Whether a product is for sale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// For sale.
    Active,
    /// No longer; old orders still name it.
    Archived,
}

/// A product as a caller describes it; what is not said is decided here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// See [`Product::title`].
    pub title: String,
    /// See [`Product::description`].
    pub description: String,
    /// See [`Product::brand`].
    pub brand: String,
    /// See [`Product::categories`].
    pub categories: Vec<String>,
    /// See [`Product::variants`].
    pub variants: Vec<VariantDraft>,
    /// True where not said.
    pub stocked: Option<bool>,
    /// Active at creation, unchanged later, where not said.
    pub state: Option<State>,
    /// See [`Product::image_uri`].
    pub image_uri: String,
    /// See [`Product::attributes`].
    pub attributes: BTreeMap<String, String>,
    /// See [`Product::external_id`].
    pub external_id: String,
}

/// A variant as a caller describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VariantDraft {
    /// The one it has or is made from its SKU where empty.
    pub id: String,
    /// See [`Variant::sku`].
    pub sku: String,
    /// See [`Variant::title`].
    pub title: String,
    /// See [`Variant::options`].
    pub options: Vec<Choice>,
    /// See [`Variant::prices`], in any order.
    pub prices: Vec<Money>,
    /// See [`Variant::list_prices`], in any order.
    pub list_prices: Vec<Money>,
    /// The product's value where not said.
    pub stocked: Option<bool>,
    /// See [`Variant::weight_grams`].
    pub weight_grams: i32,
    /// See [`Variant::tax_basis_points`].
    pub tax_basis_points: i32,
    /// See [`Variant::image_uri`].
    pub image_uri: String,
}

/// A field of a product that can be changed by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// See [`Product::title`].
    Title,
    /// See [`Product::description`].
    Description,
    /// See [`Product::brand`].
    Brand,
    /// See [`Product::categories`].
    Categories,
    /// See [`Product::variants`].
    Variants,
    /// See [`Product::stocked`].
    Stocked,
    /// See [`Product::state`].
    State,
    /// See [`Product::image_uri`].
    ImageUri,
    /// See [`Product::attributes`].
    Attributes,
    /// See [`Product::external_id`].
    ExternalId,
}

/// What may be asked of a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Be new.
    Create(Draft),
    /// Take over these fields.
    Update {
        /// Their values.
        draft: Draft,
        /// Which.
        fields: Vec<Field>,
    },
    /// Be this, new or not.
    Replace(Draft),
}

/// What happened to a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is new.
    Created(Product),
    /// It is now this.
    Updated {
        /// All of it.
        product: Product,
        /// What differs.
        changed: Vec<Field>,
    },
}

/// Why a command is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no such product.
    #[error("the product does not exist")]
    Missing,
    /// There is such a product already.
    #[error("the product exists already")]
    Exists,
    /// A SKU is another product's.
    #[error("SKU {sku} belongs to {product}")]
    SkuTaken {
        /// The SKU.
        sku: String,
        /// Whose it is.
        product: String,
    },
    /// It would be no sound product.
    #[error("{}", first(.0))]
    Invalid(Vec<Problem>),
}

/// What is wrong with a field of a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field's path in the product, `variants[0].prices`.
    pub field: String,
    /// What is wrong.
    pub text: String,
}

fn first(problems: &[Problem]) -> String {
    problems.first().map_or_else(String::new, |problem| format!("{} {}", problem.field, problem.text))
}

/// What `command` makes of a product, or nothing when it changes nothing. `taken` are SKUs of other products.
pub fn decide(
    current: Option<&Product>,
    command: &Command,
    taken: &BTreeMap<String, String>,
) -> Result<Option<Event>, Rejection> {
    let product = match (command, current) {
        (Command::Create(_), Some(_)) => return Err(Rejection::Exists),
        (Command::Update { .. }, None) => return Err(Rejection::Missing),
        (Command::Create(draft) | Command::Replace(draft), current) => resolve(draft, current),
        (Command::Update { draft, fields }, Some(current)) => merge(draft, fields, current),
    };
    let problems = problems(&product);
    if !problems.is_empty() {
        return Err(Rejection::Invalid(problems));
    }
    if let Some((sku, owner)) = product.variants.iter().find_map(|variant| taken.get_key_value(&variant.sku)) {
        return Err(Rejection::SkuTaken { sku: sku.clone(), product: owner.clone() });
    }
    let Some(current) = current else { return Ok(Some(Event::Created(product))) };
    let changed: Vec<Field> = Field::ALL.into_iter().filter(|field| field.differs(current, &product)).collect();
    Ok((!changed.is_empty()).then_some(Event::Updated { product, changed }))
}

impl Command {
    /// The SKUs it names.
    pub fn skus(&self) -> impl Iterator<Item = &str> {
        let draft = match self {
            Self::Create(draft) | Self::Replace(draft) | Self::Update { draft, .. } => draft,
        };
        draft.variants.iter().map(|variant| variant.sku.as_str())
    }
}

impl Event {
    /// The product after it.
    pub fn product(&self) -> &Product {
        match self {
            Self::Created(product) | Self::Updated { product, .. } => product,
        }
    }
}

impl Product {
    /// The variant with this SKU.
    pub fn variant(&self, sku: &str) -> Option<&Variant> {
        self.variants.iter().find(|variant| variant.sku == sku)
    }

    /// What a line of a cart is called: the product, and what sets the variant apart.
    pub fn line_title(&self, variant: &Variant) -> String {
        let choices: Vec<&str> = variant.options.iter().map(|choice| choice.value.as_str()).collect();
        let apart = if choices.is_empty() { variant.title.clone() } else { choices.join(", ") };
        if apart.is_empty() || apart == self.title { self.title.clone() } else { format!("{} ({apart})", self.title) }
    }

    /// The distinct prices of its variants.
    pub fn prices(&self) -> BTreeSet<(Currency, i64)> {
        let prices = self.variants.iter().flat_map(|variant| &variant.prices);
        prices.map(|price| (price.currency, price.minor)).collect()
    }

    /// What it can be found by besides words and price, as (field, value).
    pub fn facets(&self) -> BTreeSet<(String, &str)> {
        let mut facets = BTreeSet::new();
        if !self.brand.is_empty() {
            facets.insert(("brand".to_owned(), self.brand.as_str()));
        }
        facets.extend(self.categories.iter().map(|category| ("category".to_owned(), category.as_str())));
        let choices = self.variants.iter().flat_map(|variant| &variant.options);
        facets.extend(choices.map(|choice| (format!("option.{}", choice.name), choice.value.as_str())));
        facets
    }
}

/// The price in a currency.
pub fn price_in(prices: &[Money], currency: Currency) -> Option<Money> {
    prices.iter().find(|price| price.currency == currency).copied()
}

impl Field {
    /// Every field, in the order of the contract.
    pub const ALL: [Self; 10] = [
        Self::Title,
        Self::Description,
        Self::Brand,
        Self::Categories,
        Self::Variants,
        Self::Stocked,
        Self::State,
        Self::ImageUri,
        Self::Attributes,
        Self::ExternalId,
    ];

    /// Its name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Title => "title",
            Self::Description => "description",
            Self::Brand => "brand",
            Self::Categories => "categories",
            Self::Variants => "variants",
            Self::Stocked => "stocked",
            Self::State => "state",
            Self::ImageUri => "image_uri",
            Self::Attributes => "attributes",
            Self::ExternalId => "external_id",
        }
    }

    /// The field with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }

    /// Whether a draft says anything about it.
    pub fn is_set(self, draft: &Draft) -> bool {
        match self {
            Self::Title => !draft.title.is_empty(),
            Self::Description => !draft.description.is_empty(),
            Self::Brand => !draft.brand.is_empty(),
            Self::Categories => !draft.categories.is_empty(),
            Self::Variants => !draft.variants.is_empty(),
            Self::Stocked => draft.stocked.is_some(),
            Self::State => draft.state.is_some(),
            Self::ImageUri => !draft.image_uri.is_empty(),
            Self::Attributes => !draft.attributes.is_empty(),
            Self::ExternalId => !draft.external_id.is_empty(),
        }
    }

    fn differs(self, left: &Product, right: &Product) -> bool {
        match self {
            Self::Title => left.title != right.title,
            Self::Description => left.description != right.description,
            Self::Brand => left.brand != right.brand,
            Self::Categories => left.categories != right.categories,
            Self::Variants => left.variants != right.variants,
            Self::Stocked => left.stocked != right.stocked,
            Self::State => left.state != right.state,
            Self::ImageUri => left.image_uri != right.image_uri,
            Self::Attributes => left.attributes != right.attributes,
            Self::ExternalId => left.external_id != right.external_id,
        }
    }
}

/// The whole product a draft describes.
fn resolve(draft: &Draft, current: Option<&Product>) -> Product {
    let stocked = draft.stocked.unwrap_or(true);
    let variants = variants(draft, stocked, current);
    Product {
        title: draft.title.clone(),
        description: draft.description.clone(),
        brand: draft.brand.clone(),
        categories: draft.categories.clone(),
        stocked: stocked && (variants.is_empty() || variants.iter().any(|variant| variant.stocked)),
        variants,
        state: draft.state.or_else(|| current.map(|current| current.state)).unwrap_or(State::Active),
        image_uri: draft.image_uri.clone(),
        attributes: draft.attributes.clone(),
        external_id: draft.external_id.clone(),
    }
}

/// The product with some fields of a draft.
fn merge(draft: &Draft, fields: &[Field], current: &Product) -> Product {
    let mut product = current.clone();
    let stocked = draft.stocked.filter(|_| fields.contains(&Field::Stocked));
    let named = |field: &Field| fields.contains(field);
    for field in Field::ALL.iter().filter(|field| named(field)) {
        match field {
            Field::Title => product.title.clone_from(&draft.title),
            Field::Description => product.description.clone_from(&draft.description),
            Field::Brand => product.brand.clone_from(&draft.brand),
            Field::Categories => product.categories.clone_from(&draft.categories),
            Field::Variants => {
                product.variants = variants(draft, stocked.unwrap_or(current.stocked), Some(current));
                product.stocked = stocked.unwrap_or(true) && product.variants.iter().any(|variant| variant.stocked);
            }
            Field::Stocked if named(&Field::Variants) => {}
            Field::Stocked => {
                product.stocked = stocked.unwrap_or(true);
                product.variants.iter_mut().for_each(|variant| variant.stocked = stocked.unwrap_or(true));
            }
            Field::State => product.state = draft.state.unwrap_or(State::Active),
            Field::ImageUri => product.image_uri.clone_from(&draft.image_uri),
            Field::Attributes => product.attributes.clone_from(&draft.attributes),
            Field::ExternalId => product.external_id.clone_from(&draft.external_id),
        }
    }
    product
}

/// The variants of a draft: one that is known by its SKU keeps its id, a new one gets its own from the SKU.
fn variants(draft: &Draft, stocked: bool, current: Option<&Product>) -> Vec<Variant> {
    let known = |sku: &str| current.and_then(|current| current.variant(sku)).map(|variant| variant.id.clone());
    let mut ids: Vec<Option<String>> = vec![];
    for variant in &draft.variants {
        let said = Some(variant.id.clone()).filter(|id| !id.is_empty());
        ids.push(said.or_else(|| known(&variant.sku)));
    }
    let mut used: BTreeSet<String> = ids.iter().flatten().cloned().collect();
    let mut found = Vec::with_capacity(draft.variants.len());
    for (variant, id) in draft.variants.iter().zip(ids) {
        let id = id.unwrap_or_else(|| {
            let id = free_id(&id_of_sku(&variant.sku), &used);
            used.insert(id.clone());
            id
        });
        found.push(Variant {
            id,
            sku: variant.sku.clone(),
            title: variant.title.clone(),
            options: variant.options.clone(),
            prices: by_currency(&variant.prices),
            list_prices: by_currency(&variant.list_prices),
            stocked: variant.stocked.unwrap_or(stocked),
            weight_grams: variant.weight_grams,
            tax_basis_points: variant.tax_basis_points,
            image_uri: variant.image_uri.clone(),
        });
    }
    found
}

/// A SKU as the last part of a name, where a space may not stand.
pub fn id_of_sku(sku: &str) -> String {
    sku.chars().map(|char| if char == ' ' { '-' } else { char }).collect()
}

fn free_id(wanted: &str, used: &BTreeSet<String>) -> String {
    if !used.contains(wanted) {
        return wanted.to_owned();
    }
    // The stem is cut so that the number fits; SKUs are ASCII.
    let stem: String = wanted.chars().take(58).collect();
    let mut number = 2_u32;
    while used.contains(&format!("{stem}-{number}")) {
        number += 1;
    }
    format!("{stem}-{number}")
}

fn by_currency(prices: &[Money]) -> Vec<Money> {
    let mut prices = prices.to_vec();
    prices.sort_by_key(|price| price.currency);
    prices
}

/// What keeps it from being a sound product, beyond what the contract's field rules have seen.
fn problems(product: &Product) -> Vec<Problem> {
    let mut found = Problems::default();
    if product.title.trim().is_empty() {
        found.add("title".to_owned(), "must not be empty");
    }
    if product.variants.is_empty() {
        found.add("variants".to_owned(), "must have at least one");
    }
    if product.variants.len() > MOST_VARIANTS {
        found.add("variants".to_owned(), "must have at most 200");
    }
    let (mut skus, mut ids, mut choices) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (index, variant) in product.variants.iter().enumerate() {
        let path = |field: &str| format!("variants[{index}].{field}");
        if variant.sku.is_empty() {
            found.add(path("sku"), "must not be empty");
        } else if !skus.insert(variant.sku.as_str()) {
            found.add(path("sku"), "is another variant's of this product");
        } else if !ids.insert(variant.id.as_str()) {
            found.add(path("name"), "is another variant's of this product");
        }
        if variant.prices.is_empty() {
            found.add(path("prices"), "must have at least one");
        }
        for (field, prices) in [("prices", &variant.prices), ("list_prices", &variant.list_prices)] {
            if prices.windows(2).any(|pair| matches!(pair, [left, right] if left.currency == right.currency)) {
                found.add(path(field), "must have one a currency");
            }
            if prices.iter().any(|price| price.minor < 0) {
                found.add(path(field), "must not be negative");
            }
        }
        let names: BTreeSet<&str> = variant.options.iter().map(|choice| choice.name.as_str()).collect();
        if names.len() < variant.options.len() {
            found.add(path("options"), "must have one choice an option");
        }
        let set: BTreeSet<&Choice> = variant.options.iter().collect();
        if !set.is_empty() && !choices.insert(set) {
            found.add(path("options"), "are those of another variant of this product");
        }
        if variant.stocked && !product.stocked {
            found.add(path("stocked"), "must not be true where the product has no stock");
        }
    }
    found.0
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, field: String, text: &str) {
        self.0.push(Problem { field, text: text.to_owned() });
    }
}
