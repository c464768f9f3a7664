"""Miss handling: what the layer does while a demanded expert is not there."""
