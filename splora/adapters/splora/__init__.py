"""SPLoRA: channels."""
