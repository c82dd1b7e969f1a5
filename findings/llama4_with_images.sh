#!/usr/bin/env bash
# transformers 5.24.0: Llama 4 with images (`Llama4ForConditionalGeneration`) comes to the end of no call.
#
# Its forward hands on `image_outputs` of what its text part puts out, which has no such field: a text alone, too, ends with an AttributeError
# after all layers have run, asked for a tuple or not. 5.23.0 computes it, and so does in 5.24.0 the text part by itself.
#
# Seen with Python 3.11, torch 2.13.0 and a random model of two layers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/look.py" <<'PYTHON'
import torch
import transformers
from transformers import Llama4Config, Llama4ForConditionalGeneration

text = dict(
    vocab_size=64, hidden_size=32, intermediate_size=32, intermediate_size_mlp=32, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=2, head_dim=16, num_local_experts=2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)
images = dict(
    hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=128, vision_output_dim=32, image_size=28, patch_size=14,
    projector_input_dim=32, projector_output_dim=32,
)
model = Llama4ForConditionalGeneration(Llama4Config(text_config=text, vision_config=images)).eval()
ids = torch.tensor([[1, 5, 6]])


def tried(call):
    try:
        call()
    except AttributeError as error:
        return str(error)
    return "computed"


with torch.no_grad():
    print(transformers.__version__)
    print(tried(lambda: model(input_ids=ids)))
    print(tried(lambda: model(input_ids=ids, return_dict=False)))
    print(tried(lambda: model.language_model(input_ids=ids)))
PYTHON
python3 -m venv "$folder/venv"
for version in 5.23.0 5.24.0; do
  "$folder/venv/bin/pip" install --quiet torch==2.13.0 "transformers==$version"
  "$folder/venv/bin/python" "$folder/look.py" 2> /dev/null > "$folder/$version"
  cat "$folder/$version"
done
diff "$folder/5.23.0" - <<< $'5.23.0\ncomputed\ncomputed\ncomputed'
diff "$folder/5.24.0" - <<< $'5.24.0\n\'MoeCausalLMOutputWithPast\' object has no attribute \'image_outputs\'\n\'MoeCausalLMOutputWithPast\' object has no attribute \'image_outputs\'\ncomputed'
echo "as described"
