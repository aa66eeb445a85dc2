use super::*;

/// The tensors of a model with 12 layers, sorted by name, as savers write them.
fn names() -> Vec<String> {
    let parts = ["down", "gate", "norm", "q"];
    let layers = (0..12).flat_map(|layer| parts.map(|part| format!("model.layers.{layer}.{part}")));
    let others = ["lm_head", "model.embed", "model.norm"].map(str::to_owned);
    let mut names: Vec<String> = layers.chain(others).collect();
    names.sort();
    names
}

struct Asking {
    names: Vec<String>,
    order: ExpectedOrder,
    asked: Vec<u32>,
}

impl Asking {
    fn new() -> Self {
        let names = names();
        let bytes = |name: &str| if name.ends_with("norm") { 100 } else { 1 << 20 };
        let loaded: Vec<_> =
            (0..).zip(&names).map(|(index, name)| (index, &name[..], bytes(name))).collect();
        let order = ExpectedOrder::by_module(&loaded, names.len(), 8 << 20);
        Self { names, order, asked: Vec::new() }
    }

    fn index(&self, name: &str) -> u32 {
        self.names.iter().position(|other| other == name).unwrap() as u32
    }

    fn note(&mut self, name: &str) {
        let index = self.index(name);
        self.order.note(index);
        self.asked.push(index);
    }

    /// Asks for a tensor that is not expected so soon. Returns whether it is the next one, and the first
    /// tensors that are expected from then on.
    fn jump(&mut self, name: &str, count: usize) -> (bool, Vec<&str>) {
        let (target, asked) = (self.index(name), self.asked.clone());
        let is_left = |index| !asked.contains(&index);
        let is_next = self.order.jump(target, is_left);
        let order = self.order.left_from(target, is_left);
        (is_next, order[..count].iter().map(|&index| &self.names[index as usize][..]).collect())
    }
}

#[test]
fn layers_are_expected_by_their_numbers_and_small_tensors_first() {
    let asking = Asking::new();
    let order = asking.order.all();
    assert_eq!(order.len(), asking.names.len());
    let order: Vec<_> = order.iter().map(|&index| &asking.names[index as usize][..]).collect();
    assert_eq!(order[..4], ["model.norm", "lm_head", "model.embed", "model.layers.0.down"]);
    let layers = order.iter().filter_map(|name| name.strip_suffix(".down"));
    let numbers: Vec<_> = layers.filter_map(|name| name.strip_prefix("model.layers.")).collect();
    assert_eq!(numbers, (0..12).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn the_order_within_the_first_layer_is_expected_of_the_others() {
    let mut asking = Asking::new();
    asking.note("model.embed");
    let (_, first) = asking.jump("model.layers.0.q", 4);
    assert_eq!(
        first,
        ["model.layers.0.q", "model.norm", "model.layers.0.down", "model.layers.0.gate"]
    );
    for part in ["q", "norm", "gate", "down"] {
        asking.note(&format!("model.layers.0.{part}"));
    }
    asking.note("model.norm");
    asking.note("model.layers.1.q");
    asking.note("model.layers.1.norm");
    asking.note("model.layers.1.gate");
    asking.note("model.layers.1.down");
    let (is_next, order) = asking.jump("model.layers.2.q", 6);
    let parts = ["2.q", "2.norm", "2.gate", "2.down", "3.q", "3.norm"];
    assert!(is_next);
    assert_eq!(order, parts.map(|part| format!("model.layers.{part}")));
}

/// The first jump of a program that goes through the file shows that it does.
#[test]
fn a_program_that_goes_through_the_file_is_noticed() {
    let mut asking = Asking::new();
    for name in &names()[..10] {
        asking.note(name);
    }
    assert_eq!(asking.names[10], "model.layers.10.down");
    let (is_next, order) = asking.jump("model.layers.10.down", 9);
    assert!(is_next);
    assert_eq!(order[0], "model.layers.10.down");
    assert_eq!(order[1], "model.norm", "it is small");
    assert_eq!(order[2..5], ["gate", "norm", "q"].map(|part| format!("model.layers.10.{part}")));
    assert_eq!(order[5], "model.layers.11.down");
    // Back to the order by layers.
    asking.note("model.layers.10.down");
    asking.note("model.layers.9.q");
    let (is_next, order) = asking.jump("model.layers.10.gate", 5);
    assert!(is_next);
    assert_eq!(order[1], "model.norm");
    assert_eq!(order[2..4], ["norm", "q"].map(|part| format!("model.layers.10.{part}")));
    assert_eq!(order[4], "model.layers.11.down");
}

#[test]
fn an_order_that_was_told_goes_on_behind_the_target() {
    let mut order = ExpectedOrder::told(&[3, 1, 0], 4);
    assert!(!order.contains(2) && order.contains(3));
    order.note(3);
    assert!(order.jump(1, |index| index != 3));
    assert!(!order.jump(0, |index| index != 3));
    assert_eq!(order.left_from(0, |index| index != 3), [0, 1]);
}

#[test]
fn layers_are_found_in_names() {
    assert_eq!(layer_of("model.layers.3.mlp.0.up"), Some(("model.layers", "3", "mlp.0.up")));
    assert_eq!(layer_of("0.weight"), Some(("", "0", "weight")));
    assert_eq!(layer_of("h.12"), Some(("h", "12", "")));
    assert_eq!(layer_of("conv1.weight"), None);
    assert_eq!(layer_of("a..b"), None);
    assert_eq!(layer_of(""), None);
}
