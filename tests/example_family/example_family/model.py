"""The user's own model: a small encoder over time steps, which forecasts from its last token."""

from torch import nn
from transformers import BertPreTrainedModel
from transformers.models.bert.modeling_bert import BertEncoder


class PointEncoderModel(BertPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.embed, self.encoder = nn.Linear(1, config.hidden_size), BertEncoder(config)
        self.head = nn.Linear(config.hidden_size, config.horizon)
        self.post_init()

    def forward(self, context):
        return self.head(self.encoder(self.embed(context[..., None])).last_hidden_state[:, -1])
